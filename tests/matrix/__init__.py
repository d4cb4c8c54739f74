import pytest

pytest.register_assert_rewrite("tests.matrix._cell")

"""Gateway: one request to one answer: which model, may it be asked, what did it cost. Sees providers only through ports."""

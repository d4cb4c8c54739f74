"""The command line. Talks to a server through client/; only `serve`, `dev` and `doctor` look inside the house."""

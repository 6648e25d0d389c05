"""Which endpoint a call goes to: policies and their configuration.  Pure."""

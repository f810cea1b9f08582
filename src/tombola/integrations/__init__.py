"""tombola within other frameworks. Each module here needs an extra, and nothing imports it but who asks for it."""

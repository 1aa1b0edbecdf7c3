"""Every setting, as people ask for it: what it is called, where it may come from, what it does, what it is now. Applications do not import this."""

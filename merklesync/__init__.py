"""merklesync."""

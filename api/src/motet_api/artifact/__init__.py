"""What an adapter's files must be: checks over bytes that are already in memory, the same for store and runtime.

Nothing here opens a file, reads a clock or imports anything but the standard library and `motet_api`. Every input is
taken for hostile: sizes, counts and depths are bounded before anything is done with them.
"""

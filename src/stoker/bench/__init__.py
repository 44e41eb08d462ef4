"""What it takes to measure a daemon as its clients see it: for `stoker bench`, and the benchmarks in `bench/`.

The daemon is a process like any other here: it is started, asked over its sockets, struck, and ended.
No part of it is imported.
"""

"""Libraries that take the place of calls of the C library in a process that a test starts."""

import shutil
import subprocess
from pathlib import Path

import pytest

WITHOUT_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { errno = ENOLCK; return -1; }
int link(const char *from, const char *to) { errno = EPERM; return -1; }
int linkat(int a, const char *from, int b, const char *to, int flags) { errno = EPERM; return -1; }
"""
"""A file system without flock and without hard links."""
SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += atol(getenv("SHIFT_S"));
  return failed;
}
time_t time(time_t *kept) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (kept) *kept = now.tv_sec;
  return now.tv_sec;
}
"""
"""A machine whose wall clock is wrong by SHIFT_S seconds; its monotonic clock is right."""


def preloaded(source: str, folder: Path) -> dict[str, str]:
    """The environment of a process that calls these functions; skips without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    file, library = folder / "preloaded.c", folder / "preloaded.so"
    file.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, file], check=True)
    return {"LD_PRELOAD": str(library)}

"""Whether the package index that pip is set up with answers: `pip_reach.py PYTHON [pip's options]`.

pip itself asks, for a small package, so its proxies, certificates and mirrors count; by itself it
would go on trying for minutes. Exit code 0: it answered, or what is wrong pip can say better;
1: no answer within 12 seconds (longer under load), and one line that says why and names the proxy in use.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

SECONDS = 12  # on an idle machine
ONCE = ["-vv", "--no-deps", "--no-cache-dir", "--retries", "1", "--timeout", "5", "--dest"]
NO_ANSWER = re.compile(r"Could not fetch URL (\S+): (?!4\d\d )(.*)")  # 4..: an answer, if no good one
CAUSES = re.compile(
    r"(?i)connection refused|timed out|name or service not known|[a-z ]*name resolution|"
    r"network is unreachable|no route to host|tunnel connection failed: [\w ]+|certificate verify failed|"
    r"connection reset by peer|nodename nor servname[a-z ,]*"
)


def main(argv: list[str]) -> int:
    python, *options = argv
    reason = no_answer([python, "-m", "pip"], options)
    if reason is None:
        return 0
    print(f"pip gets no answer from its package index ({reason}) {hint(proxies([python, '-m', 'pip']))}")
    return 1


def no_answer(pip: list[str], options: list[str]) -> str | None:
    """Why the index does not answer; None: it does."""
    with tempfile.TemporaryDirectory() as folder:
        limit = SECONDS * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))  # pip itself is slow under load
        command = [*pip, "download", *ONCE, folder, *options, "tqdm"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", timeout=limit,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"tried for {limit:.0f} seconds"
    if not (lost := NO_ANSWER.findall(done.stdout)):
        return None
    url, text = lost[-1]
    causes = [match.strip() for match in CAUSES.findall(text)] or [text[-120:]]
    return f"{re.sub('^.*//([^/]*@)?', '', url).split('/')[0]}: {causes[-1]}"


def proxies(pip: list[str]) -> list[str]:
    """The proxies that pip would use, as NAME=value without user and password."""
    names = sorted(n for n, v in os.environ.items() if v and re.fullmatch(r"(?i)(https?|all|pip)_proxy", n))
    found = [f"{name}={os.environ[name]}" for name in names]
    done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, errors="replace")
    found += [f"pip config {line}" for line in done.stdout.splitlines() if re.match(r"[^:]\S*\.proxy=", line)]
    return [re.sub(r"//[^/@]*@", "//", proxy) for proxy in found]


def hint(found: list[str]) -> str:
    if found:
        return f"through the proxy of {' and '.join(found)}: correct or unset it, then call this again"
    return "and no proxy is set: is there a network? Behind a proxy set HTTPS_PROXY=http://HOST:PORT"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

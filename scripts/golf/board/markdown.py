"""Markdown tables of untrusted text, in which nothing is markup."""

import re


def cell(text: str) -> str:
    """Untrusted text for a Markdown table, with punctuation as entities so that nothing is markup.

    CommonMark 2.5: an entity never acts as a structural symbol.
    """
    return re.sub(r"[!-+./:-@\[-`{-~]", lambda c: f"&#{ord(c[0])};", text)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in lines]

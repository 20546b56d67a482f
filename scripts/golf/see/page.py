"""What every HTML page here shares: one file, no network, light and dark, nothing foreign unescaped."""

from html import escape

# color-scheme lets the browser's own controls follow; light-dark() needs a browser of 2024.
STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2127; --dim: #5c6670; --line: #d5dae0;
  --soft: #f3f5f7; --link: #0b5cad; --accent: #d1661f; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e3e7eb; --dim: #98a2ad; --line: #343b43; --soft: #1d2227;
    --link: #7db7f5; --accent: #f0894a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 68rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
a { color: var(--link); }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .3rem 0 .6rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { max-width: 46rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; }
th, td.n, td:first-child { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.dim { color: var(--dim); }
code, pre { font: .875em/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem .9rem; overflow-x: auto; overflow-wrap: normal; }
pre.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.pictures { display: grid; gap: 1rem; margin-bottom: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
.pictures:has(> :nth-child(4):last-child) { /* two rows of two */
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.pictures img { width: 100%; max-width: 34rem; height: auto; display: block; }
.score { font-size: 2.6rem; line-height: 1.1; font-weight: 600; margin: 0 0 1rem; }
.score span { display: inline-block; font-size: 1rem; font-weight: 400; color: var(--dim); }
summary { cursor: pointer; }
@media (max-width: 30rem) { th, td { font-size: .875rem; padding-right: .5rem; } }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
"""


def page(title: str, body: str, style: str = "", head: str = "") -> str:
    """A whole page. `title` is text; `body`, `style` and `head` are markup."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}{style}</style>\n{head}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(head: list[str], rows: list[list[str]], numbers=(), head_row: bool = True) -> str:
    """A table of texts, all of them escaped; the columns `numbers` stand right."""
    kind = [' class="n"' if i in numbers else "" for i in range(len(head))]
    lines = ["<tr>" + "".join(f"<th{k}>{escape(c)}</th>" for k, c in zip(kind, head)) + "</tr>"] * head_row
    lines += [
        "<tr>" + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kind, row)) + "</tr>" for row in rows
    ]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"

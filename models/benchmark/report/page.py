"""A report as one HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from models.benchmark import tables
from models.benchmark.report.section import Section, figures


def as_html(title: str, sections: Sequence[Section]) -> str:
    """A page that needs nothing else: pictures and style are in it."""
    body, links = [], []
    for place, section in enumerate(sections, start=1):
        anchor = f"section-{place}"
        links.append(f'<li><a href="#{anchor}">{html.escape(section.title)}</a></li>')
        body.append(f'<section id="{anchor}">\n<h2>{html.escape(section.title)}</h2>')
        if section.lines:
            items = "\n".join(f"<li>{html.escape(line)}</li>" for line in section.lines)
            body.append(f"<ul>\n{items}\n</ul>")
        if section.pictures:
            body.append('<div class="pictures">')
        for picture in section.pictures:
            data = base64.b64encode(figures().svg(picture.draw())).decode("ascii")
            alternative = html.escape(picture.alternative, quote=True)
            body.append(
                f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{alternative}">'
                f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
            )
        if section.pictures:
            body.append("</div>")
        body += [tables.as_html(table) for table in section.tables]
        body.append("</section>")
    contents = "\n".join(body)
    return _PAGE.format(title=title, links="".join(links), contents=contents)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 90rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }}
h1 {{ font-size: 1.8rem; margin: 1rem 0; }}
h2 {{ font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 2px solid #0072b2; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }}
a {{ color: #005a8e; }}
.wide {{ overflow-x: auto; margin: 1rem 0 .25rem; }}
.wide:focus-visible {{ outline: 2px solid #005a8e; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: .25rem 0; }}
th, td {{ padding: .3rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid #d5d5d5; }}
thead th {{ border-bottom: 2px solid #595959; white-space: nowrap; }}
tbody th {{ font-weight: 500; white-space: nowrap; }}
.number {{ text-align: right; white-space: nowrap; }}
tbody tr:nth-child(even) {{ background: #f5f7f9; }}
.note, figcaption {{ color: #4a4a4a; font-size: .875rem; margin: .25rem 0 1rem; max-width: 60rem; }}
.pictures {{ display: flex; flex-wrap: wrap; align-items: end; column-gap: 2rem; }}
figure {{ margin: 1rem 0; flex: 0 1 41rem; }}
img {{ max-width: 100%; height: auto; }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{contents}
</main>
</body>
</html>
"""

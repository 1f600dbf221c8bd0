"""The report of a suite: sections of text, tables and pictures, as Markdown and as HTML.

Both are made of the results alone: the same file gives the same bytes.
"""

from __future__ import annotations

from models.benchmark.comparison import Comparison, compare
from models.benchmark.report import micro, overview, page, provenance, quality, scaling, speed
from models.benchmark.report.section import Section
from models.benchmark.results import Results
from models.benchmark.summary import configurations
from models.benchmark.tables import markdown
from tfkfac.errors import InputError

TITLE = "HPC AI500 report"


def as_markdown(results: Results) -> str:
    """The report without pictures."""
    text = [f"# {TITLE}"]
    for section in sections(results):
        text.append(f"## {section.title}")
        if section.lines:
            text.append("\n".join(f"- {line}" for line in section.lines))
        text += [markdown(table) for table in section.tables]
    return "\n\n".join(text) + "\n"


def as_page(results: Results) -> str:
    """The report as an HTML page that needs nothing else: pictures and style are in it."""
    return page.as_html(TITLE, sections(results))


def sections(results: Results) -> list[Section]:
    """The whole report.

    Raises:
        InputError: if nothing has ended yet.
    """
    if not results.records and not results.micro:
        raise InputError("no trial and no micro benchmark has ended; there is nothing to report")
    groups = configurations(results)
    contest, why_not = _contest(results)
    parts = [
        overview.section(results, groups, contest),
        quality.time_to_quality(groups, contest),
        quality.qualities(groups),
        quality.performance_profile(contest, why_not),
        speed.steps(groups),
        speed.energy_and_cost(groups),
        scaling.section(groups),
        micro.section(results.micro),
        provenance.trials(results),
        provenance.settings(groups),
        provenance.system(results),
    ]
    return [part for part in parts if part is not None]


def _contest(results: Results) -> tuple[Comparison | None, str]:
    """The comparison of optimizers, or why there is none."""
    try:
        return compare({"these results": results}), ""
    except InputError as error:
        return None, str(error)

"""What is said on a terminal: text on one line, and what a data set holds."""

from __future__ import annotations

import shutil
import textwrap

from .data import dataset
from .data.splits import breakdown


def one_line(said: object) -> str:
    """Text that may hold names of files, for a terminal: what would break the line or act on the terminal is escaped."""
    return "".join(
        sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(str(said).split())
    )


def show(data: dataset.Dataset) -> None:
    """Print what a data set holds, how it stands to the published one, and what may be wrong with it."""
    from .evaluation import audit
    from .reporting import data_findings, published  # here, as scikit-learn takes seconds to import

    standing = published.standing(data.source.kind, data.manifest.counts())
    audited = audit.audit(data)
    print(
        f"{data.source.kind}{' (SYNTHETIC)' if data.source.synthetic else ''}: {data.manifest.root}"
    )
    for sentence in (
        published.STANDINGS[standing],
        *data_findings.against_published(data, standing),
    ):
        _print_wrapped(sentence)
    for name, value in data_findings.origin(data, standing).items():
        _print_wrapped(f"{name}: {value}")
    print("\nimages and patients by published folder:")
    print(breakdown(data.files, "folder").to_string())
    print("\nby split, as a run with default parameters uses them:")
    print(breakdown(data.files, "split").to_string())
    print("\naudit:")
    for finding in audited:
        remedy = f" Remedy: {finding.remedy}" if finding.remedy else ""
        _print_wrapped(f"{finding.verdict}: {finding.check}. {finding.says}{remedy}")
    for finding in audited:
        if finding.files:
            print(f"\n{finding.check}, files (those joined by = belong together):")
        for name in finding.files:
            print(f"  {one_line(name)}")


def _print_wrapped(sentence: str) -> None:
    width = max(shutil.get_terminal_size((120, 24)).columns - 2, 40)
    print(textwrap.fill(sentence, width, initial_indent="  ", subsequent_indent="    "))

"""`jobrota report`: writes a result as an HTML page."""

from __future__ import annotations

import argparse

from jobrota.commands.output import add_output, print_json

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "write the report of a comparison: one HTML file that works offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `jobrota report` to its parser."""
    parser.add_argument("result", metavar="RESULT", help="result JSON, such as results/pooled_jobs_comparison_….json")
    parser.add_argument("-o", "--output", metavar="FILE", help="the HTML file (default: beside the result)")
    parser.add_argument("--images", metavar="DIR", help="also write an image of each chart into this folder")
    parser.add_argument(
        "--format", default="png,svg", metavar="FORMATS", help="formats of the images: png, svg or both"
    )
    parser.add_argument("--title", metavar="TEXT", help="title of the page")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes the report and prints its path."""
    from jobrota.report import write

    formats = [name.strip() for name in arguments.format.split(",") if name.strip()]
    path = write(arguments.result, arguments.output, title=arguments.title, images=arguments.images, formats=formats)
    if arguments.json:
        print_json({"report": path, "images": arguments.images})
    else:
        print(f"report: {path}")
    return 0

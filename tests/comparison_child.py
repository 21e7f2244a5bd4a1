"""A comparison in a separate process, which a test kills: `comparison_child.py OPTIONS_AS_JSON [JOURNAL]`."""

from __future__ import annotations

import json
import sys

import jobrota


def main() -> None:
    """Runs, or resumes, and says each event."""
    options = json.loads(sys.argv[1])
    runner = jobrota.ViyaComparisonRunner(options.pop("base_url"), **options)

    def say(event: dict[str, object]) -> None:
        print(json.dumps(event), flush=True)

    result = runner.resume(sys.argv[2], progress=say) if len(sys.argv) > 2 else runner.run(progress=say)
    print(json.dumps({"path": str(result.path)}), flush=True)


if __name__ == "__main__":
    main()

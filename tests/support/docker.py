"""Read the Dockerfile and .dockerignore as far as tests need it, where there is no docker."""

import re

from tests.support.paths import ROOT


def docker_stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile by its name, in order, with continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    parts = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].rpartition(" AS ")[2]: part for part in parts}


def docker_copies(stage: str) -> list[tuple[str, str]]:
    """Each source of a COPY line with its target."""
    lines = [line.split()[1:] for line in stage.splitlines() if line.startswith("COPY ")]
    return [(source, words[-1]) for words in lines for source in words[:-1]]


def docker_words(stage: str, instruction: str) -> list[str]:
    """What follows an instruction, one item per line of the stage with this instruction."""
    return [line.partition(" ")[2] for line in stage.splitlines() if line.startswith(f"{instruction} ")]


def is_sent_to_docker(source: str) -> bool:
    """Whether the source of a COPY line exists, and .dockerignore, which excludes everything else, lets it through."""
    first, *rest = (ROOT / ".dockerignore").read_text().split()
    return first == "*" and f"!{source}" in rest and any(ROOT.glob(source))


def apt_packages(text: str) -> set[str]:
    """Packages in a stage's `apt-get install` lines."""
    found = re.findall(r"apt-get install -y --no-install-recommends ([^&\n]+)", text)
    return set(" ".join(found).split())

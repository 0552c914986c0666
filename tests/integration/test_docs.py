"""README and docs: every path, module, make verb, option and link they mention exists, and README keeps its size."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGES = sorted(
    path
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
    if path.name != "LOG.md"
)
PACKAGES = ("dataset", "render", "train", "distill", "cluster", "examples", "benchmarks", "tests")
FOLDERS = (*PACKAGES, "docs", "weights", ".ci", ".github")
README_BYTES = 8_600
README_LINES = 155
LINE_LENGTH = 120

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def code_of(page: Path) -> str:
    """Code spans and code blocks of a page, a line for each span."""
    text = page.read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    indented = re.findall(r"^ {4}\S.*$", rest, re.M)
    return "\n".join([*fenced, *indented, *re.findall(r"`([^`\n]+)`", rest)])


def paths_in(code: str) -> set[str]:
    """Paths below a folder of the checkout, without globs and placeholders."""
    found = re.findall(rf"(?<![\w./~:-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*", code)
    return {path.rstrip(".") for path in found}


def modules_in(code: str) -> set[str]:
    """Dotted names that begin with a package, `train.sample`, and what `python -m` is given."""
    dotted = re.findall(rf"(?<![\w./:-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?![\w/])", code)
    started = re.findall(r"python(?:3(?:\.\d+)?)? -m ([\w.]+)", code)
    dotted = [name for name in dotted if not name.endswith((".yaml", ".py"))]  # files named without their folder
    return {*dotted, *(name for name in started if name.split(".")[0] in PACKAGES)}


def module_exists(name: str) -> bool:
    """Whether a dotted name is a folder, a module, or a name defined at the top of a module."""
    place, _, last = name.rpartition(".")
    if (ROOT / name.replace(".", "/")).is_dir() or (ROOT / f"{name.replace('.', '/')}.py").is_file():
        return True
    module = ROOT / f"{place.replace('.', '/')}.py"
    return module.is_file() and re.search(rf"^(class|def) {last}\b|^{last}\b.*=", module.read_text(), re.M) is not None


@cache
def make_verbs() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M))


def make_calls_in(code: str) -> set[str]:
    """The verbs of each `make VERB VERB NAME=value` in a page's code."""
    calls = re.findall(r"(?:^|[\s(;])make((?: [a-z0-9-]+)+)(?=$|[\s);])", code, re.M)
    return {verb for call in calls for verb in call.split()}


@cache
def source_text() -> str:
    return "\n".join(path.read_text() for package in PACKAGES[:-1] for path in (ROOT / package).rglob("*.py"))


def option_exists(option: str) -> bool:
    """Whether an option is written out in the packages or is the field of a dataclass that becomes one."""
    field = option.removeprefix("--").removeprefix("no-").replace("-", "_")
    return option in source_text() or re.search(rf"^    {field}: ", source_text(), re.M) is not None


FOREIGN_OPTIONS = {
    *("--nproc-per-node", "--tmux", "--stop"),  # of torchrun and ray
    *("--tag", "--target", "--rm", "--publish", "--volume", "--build-arg", "--gpus"),  # of docker
}


@pages
def test_paths_exist(page):
    missing = [path for path in sorted(paths_in(code_of(page))) if not (ROOT / path).exists()]
    assert not missing


@pages
def test_modules_exist(page):
    missing = [name for name in sorted(modules_in(code_of(page))) if not module_exists(name)]
    assert not missing


@pages
def test_make_verbs_exist(page):
    assert not sorted(make_calls_in(code_of(page)) - make_verbs())


@pages
def test_options_exist(page):
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", code_of(page))) - FOREIGN_OPTIONS
    assert not sorted(option for option in options if not option_exists(option))


@pages
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        linked = (page.parent / file) if file else page
        assert linked.is_file(), f"{target} does not exist"
        assert not heading or heading in headings_of(linked), f"{target}: no such heading"


def headings_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= README_BYTES
    assert len(text.splitlines()) <= README_LINES
    assert not [line for line in text.splitlines() if len(line) > LINE_LENGTH]


def tree_entries(tree: str) -> list[str]:
    """Paths that a file tree names: a package in each line without indent, below it folders, and files named *.py."""
    entries: list[str] = []
    package = folder = ""
    for line in tree.splitlines():
        names = line.split()
        folders = [name for name in names if name.endswith("/")]
        if not line.startswith(" "):
            package = folder = folders[0]
            entries += folders
        elif folders:
            folder = package + folders[0]
            entries += [package + name for name in folders]
        entries += [folder + name for name in re.findall(r"\w+\.py\b", line)]
    return entries


def test_the_tree_in_the_readme_exists():
    (tree,) = re.findall(r"^```\n(dataset/.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    entries = tree_entries(tree)
    assert {"dataset/camera.py", "dataset/format/", "distill/mesh/uv_unwrap.py"} <= {*entries}
    assert not [entry for entry in entries if not (ROOT / entry).exists()]


def test_every_page_is_reachable_from_the_readme():
    text = (ROOT / "README.md").read_text()
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name}" not in text]


def test_a_missing_path_module_verb_or_option_is_found():
    code = "train/none.py and train.none.Thing, `make nonsense SHARDS=x`\nmake render fly\npython -m dataset.none"
    assert paths_in(code) == {"train/none.py"}
    assert {name for name in modules_in(code) if not module_exists(name)} == {"train.none.Thing", "dataset.none"}
    assert make_calls_in(code) - make_verbs() == {"fly"}
    assert not option_exists("--not-an-option")


def test_what_the_documentation_names_is_recognized():
    assert module_exists("dataset.camera.relative_camera")
    assert module_exists("train.evaluate")
    assert not module_exists("dataset.camera.no_such_function")
    assert option_exists("--shards")

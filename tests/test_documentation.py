"""README and docs, followed word for word: every command, every Python block, every link, every figure."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from documented_commands import BROUGHT, COMMANDS, INLINE, PYTHON_PRINTS, Elsewhere, NotHere, Refused, Runs
from pages import PAGES, ROOT, blocks_of, commands_of, commands_on, images_on, inline_code_on, text_lines_of, texts_on

import slimjax
from slimjax.configuration import configuration_file, known_keys

# A `text` block is output or a layout, `kotlin` is for phones; {...} are directives of MyST.
LANGUAGES = re.compile(r"bash|python|text|kotlin|\{[a-z-]+\}.*")
# Of absl and of argparse.
DEFINED_FLAG = re.compile(r'(?:flags\.DEFINE_\w+\(\s*"|add_argument\(\s*"--)(\w+)"')
GIVEN_FLAG = re.compile(r"(?<!\S)--(?:no)?(\w+)")
PROGRAM = re.compile(r"python (?:-m (slimjax\.\w+)|([\w/]+\.py))([^&|;]*)")
# Inline code that is a command; what begins with -- is the rest of one.
INLINE_COMMAND = re.compile(r"(?:\.venv/bin/)?(?:python|pip) .*|make .*|apt-get .*|--.*")
SHARED_FLAGS = {"cli.define_format(": ["format", "output"], "cli.define_quiet(": ["quiet"]}
COPIED = ["configs", "docs", "experiments", "Makefile", "README.md", "pyproject.toml", "requirements.lock", "setup.cfg"]
CODE = ["configs", "docs", "experiments", "slimjax", "tests"]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    odd = [block.line for block in blocks_of(page) if not LANGUAGES.fullmatch(block.language)]
    assert not odd, f"{page}: the blocks at lines {odd} have to be fenced, as bash, python or text"


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_text_are_at_most_120_characters_long(page):
    long = {line: text for line, text in text_lines_of(page) if len(re.sub(r"\]\([^)]*\)", "", text)) > 120}
    assert not long


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_are_none_of_the_text(page):
    """As one is whose words have a line that begins like that of a list: `1. `."""
    assert not [text for text in texts_on(page) if "![" in text or "](" in text]


def test_every_figure_is_shown():
    figures = {ROOT / "docs" / "report.png", *(ROOT / "docs" / "figures").iterdir()}
    assert figures <= {path for page in PAGES for path in images_on(page)}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_in_the_table(page):
    told, tried = commands_on(page), list(COMMANDS.get(page, {}))
    assert told == tried, f"make tests/documented_commands.py say how each command of {page} is tried, in its order"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_the_text_is_in_a_table(page):
    """A program that is named without its arguments is in some block with them."""
    tried = [f"{command} " for commands in COMMANDS.values() for command in commands]
    for command in inline_commands_on(page):
        assert command in INLINE or any(other.startswith(f"{command} ") for other in tried), command


def test_commands_that_are_run_elsewhere_are_told_and_are_run_there():
    assert INLINE.keys() <= {command for page in PAGES for command in inline_commands_on(page)}
    for how in INLINE.values():
        assert not isinstance(how, Elsewhere) or how.runs in (ROOT / how.file).read_text(), how


def inline_commands_on(page):
    """Whole commands within a page's text."""
    codes = [code for code in inline_code_on(page) if INLINE_COMMAND.fullmatch(code)]
    return [code for code in codes if not code.startswith("--")]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_of_bash_and_name_what_there_is(page):
    inline = [code for code in inline_code_on(page) if INLINE_COMMAND.fullmatch(code)]
    for command in [*commands_on(page), *inline]:
        assert subprocess.run(["bash", "-n"], input=command, text=True, check=False).returncode == 0, command
        assert set(re.findall(r"\bmake ([\w-]+)(?!\S)", command)) <= make_targets(), command
        for module, script, arguments in PROGRAM.findall(command):
            file = ROOT / (script or f"{module.replace('.', '/')}.py")
            assert file.is_file(), command
            assert set(GIVEN_FLAG.findall(arguments)) <= flags_of(file), command
        for configuration in re.findall(r"--config=([a-z][\w/.]*)", command):
            assert configuration_file(configuration), command
        if command.startswith("--"):
            assert any(set(GIVEN_FLAG.findall(command)) <= flags_of(file) for file in files_of_code()), command


def make_targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def flags_of(file):
    """The flags that a program takes, by the code that defines them."""
    code = file.read_text()
    shared = {flag for call, flags in SHARED_FLAGS.items() if call in code for flag in flags}
    return {"help", *DEFINED_FLAG.findall(code)} | shared


@cache
def files_of_code():
    return [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("page", COMMANDS)
def test_what_overrides_a_flag_of_the_page_has_a_reason(page):
    flags = re.compile(r"(?<= --)(?:no)?([\w.]+)")
    for command, how in COMMANDS[page].items():
        if isinstance(how, Runs) and set(flags.findall(command)) & set(flags.findall(f" {how.appended}")):
            assert how.reason, command


@pytest.mark.parametrize("page", PAGES)
def test_what_the_text_names_is_there(page):
    text = (ROOT / page).read_text()
    for pattern in (code for code in inline_code_on(page) if re.fullmatch(r"[\w*/]+\.py", code)):
        assert any(path.match(pattern) for path in files_of_code()), pattern
    assert set(re.findall(r"--config\.([a-z_0-9.]*[a-z_0-9])", text)) <= set(known_keys())
    extras = re.findall(r"-e '\.\[(\w+)\]'|'slimjax\[([\w,]+)\]'", text)
    declared = re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert {extra for pair in extras for group in pair for extra in group.split(",") if extra} <= set(declared)


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text()
    told = re.findall(r"^\.\. auto\w+:: slimjax\.(?:models\.(?=MODELS))?(\w+)(?:\(\))?$", page, re.MULTILINE)
    assert sorted(told) == sorted(slimjax.__all__)


@pytest.fixture(scope="module")
def copy_repository(tmp_path_factory):
    """Makes a copy of what readers need of the repository, installed."""

    def make():
        folder = tmp_path_factory.mktemp("repository")
        for name in COPIED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, folder / name)
        (folder / ".venv").mkdir()
        for part in Path(sys.prefix).iterdir():
            if not part.name.startswith(".installed"):
                (folder / ".venv" / part.name).symlink_to(part)
        (folder / ".venv" / ".installed").touch()
        return folder

    return make


@pytest.fixture(scope="module")
def run(users_environment):
    """Runs a command in a folder as a reader does who has activated its virtual environment."""

    def run(command, folder):
        path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        bash = ["bash", "-e", "-o", "pipefail", "-c", command]
        variables = users_environment | {"PATH": path}
        return subprocess.run(bash, cwd=folder, env=variables, capture_output=True, text=True, timeout=600, check=False)

    return run


@pytest.fixture(scope="module")
def digits(copy_repository, run):
    """The folder `runs` with the digits' run, as the first command of README leaves it."""
    folder = copy_repository()
    result = run("make demo", folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs"


@pytest.fixture
def repository(copy_repository, digits):
    """A copy of the repository with the digits' run."""
    folder = copy_repository()
    shutil.copytree(digits, folder / "runs")
    return folder


FOLLOWED = [page for page in PAGES if commands_on(page) or any(block.language == "python" for block in blocks_of(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed(page, repository, run, monkeypatch, capsys):
    BROUGHT.get(page, lambda folder: None)(repository)
    monkeypatch.chdir(repository)
    names, printed = {}, ""
    blocks = blocks_of(page)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language == "bash":
            for command in commands_of(block):
                follow(command, COMMANDS[page][command], lambda text: run(text, repository))
        elif block.language == "python":
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
            out = capsys.readouterr().out
            if is_output_of(block, following):
                assert out == following.text
            printed += out
    assert re.search(PYTHON_PRINTS.get(page, ""), printed), printed


def is_output_of(block, following):
    """Whether the next block of a page is a text with nothing but two fences in between."""
    last_line = block.line + block.text.count("\n") - 1
    return following is not None and following.language == "text" and following.line == last_line + 3


def follow(command, how, run):
    if isinstance(how, NotHere):
        return
    if isinstance(how, Runs) and how.makes:
        # Some are committed, and would be there whatever the command does.
        remove(Path(how.makes))
    result = run(f"{command} {how.appended}" if isinstance(how, Runs) else command)
    told = f"{command}\n{result.stdout}\n{result.stderr}"
    if isinstance(how, Refused) or (how.needs and not importlib.util.find_spec(how.needs)):
        assert result.returncode == 2, told
        assert re.fullmatch("error: .*\n", result.stderr), told
        assert re.search(how.message if isinstance(how, Refused) else rf"slimjax\[{how.needs}\]", result.stderr), told
        return
    assert result.returncode == 0, told
    assert re.search(how.prints, result.stdout), told
    assert Path(how.makes).exists(), told


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_what_was_there_before_does_not_count_as_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "in_it").mkdir(parents=True)
    ended = subprocess.CompletedProcess("true", 0, stdout="", stderr="")
    for name in ("file", "folder"):
        with pytest.raises(AssertionError, match="true"):
            follow("true", Runs(makes=name), lambda text: ended)
    follow("true", Runs(makes="file"), lambda text: Path("file").touch() or ended)


@pytest.fixture(scope="module")
def check_links():
    return load(ROOT / "docs" / "check_links.py")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOTEBOOKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "experiments" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS])
def test_links_lead_somewhere(check_links, page):
    assert not list(check_links.dead_links(ROOT / page, check_links.read_markdown, ".md"))


def test_dead_links_are_found(check_links, tmp_path, capsys):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# A `b`, c!\n\n## Twice\n\n## Twice\n")
    alive = ["other.md", "other.md#a-b-c", "other.md#twice-1", "#here", "https://arxiv.org/abs/1812.08928"]
    dead = ["others.md", "other.md#d", "other.md#twice-2", "#there", "htps://arxiv.org", "https://arxiv"]
    page.write_text("# Here\n\n" + "\n".join(f"[x]({link})" for link in alive + dead) + "\n![y](none.png)\n")
    found = list(check_links.dead_links(page, check_links.read_markdown, ".md"))
    assert [line.split(": ")[1].removesuffix(" is no address") for line in found] == [*dead, "none.png"]
    built = tmp_path / "built"
    built.mkdir()
    assert check_links.main(built, []) == 2
    (built / "index.html").write_text('<h1 id="top">x</h1><a href="#top">x</a><a href="#bottom">x</a><img src="a.svg">')
    assert check_links.main(built, []) == 1
    err = capsys.readouterr().err
    assert "#bottom: " in err
    assert "a.svg: there is no " in err
    assert "#top" not in err


@pytest.fixture(scope="module")
def draw_figures():
    return load(ROOT / "docs" / "draw_figures.py")


def test_the_figures_are_what_the_code_draws(draw_figures, tmp_path):
    draw_figures.main(tmp_path)
    committed = sorted((ROOT / "docs" / "figures").glob("*.svg"))
    assert [path.name for path in committed] == sorted(path.name for path in tmp_path.iterdir())
    for path in committed:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), f"python docs/draw_figures.py, for {path.name}"


def test_the_figures_show_what_the_paper_and_the_widths_say(draw_figures):
    model = draw_figures.mobilenet_v2()
    # Rounded to multiples of 8 by hand: inputs 64 * width, outputs 6 times as many.
    readers = draw_figures.narrowest_readers(model, "block_8", "expand", "conv")
    assert [int((readers <= switch).sum()) for switch in range(4)] == [24 * 144, 32 * 192, 48 * 288, 64 * 384]
    assert (readers[:24, :144] == 0).all()
    assert (readers[48:] == 3).all()
    assert (readers[:, 288:] == 3).all()
    totals = [sum(block.macs for block in draw_figures.blocks_at(model, width)) / 1e6 for width in model.widths]
    assert totals == pytest.approx([59.3, 97.1, 209.1, 300.8], abs=0.05)
    assert [block.features for block in draw_figures.blocks_at(model, 0.5)][-3:] == [160, 1280, 1000]

"""The type checker sees the packages under their full names and reports files of the checkout."""

from pathlib import Path

import pytest

from tools import check_types

pytest.importorskip("mypy")


def write(checkout: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text, encoding="utf-8")


def check(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> int:
    monkeypatch.setattr(check_types, "ROOT", checkout)
    monkeypatch.setattr(check_types, "CACHE", checkout / ".mypy_cache")
    monkeypatch.setattr("sys.argv", ["check_types.py"])
    with pytest.raises(SystemExit) as ended:
        check_types.main()
    return ended.value.code


def test_a_mistake_between_two_packages_is_shown_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = {f"{name}/__init__.py": "" for name in check_types.PACKAGES}
    right = {
        "fewseg/__init__.py": '__version__ = "1"\n',
        "pyproject.toml": "[tool.mypy]\nexplicit_package_bases = true\n",
        "util/half.py": "def half(number: int) -> int:\n    return number // 2\n",
        "engine/use.py": "from fewseg.util.half import half\n\nresult: int = half(2)\n",
        "tools/run.py": "from fewseg.engine.use import result\n\nprint(result + 1)\n",
        "train.py": "from tools.run import result\n\nprint(result + 1)\n",
    }
    write(tmp_path, packages | right)
    assert check(monkeypatch, tmp_path) == 0
    write(
        tmp_path,
        {
            "engine/use.py": 'from fewseg.util.half import half\n\nresult = half("2")\n',
            "train.py": "1 + ''\n",
        },
    )
    assert check(monkeypatch, tmp_path) == 1
    said = capsys.readouterr().out.splitlines()
    for place in ("engine/use.py:3: error: ", "train.py:1: error: "):
        assert any(line.startswith(place) for line in said), said
    assert said[-1].startswith("Found 2 errors")

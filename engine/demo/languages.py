"""What a file is by its name, and which folders hold nothing that people wrote."""

__all__ = ["OTHER", "is_left_out", "language_of"]

OTHER = "other"

_LANGUAGES = {
    "C": "c h",
    "C++": "cc cpp cxx hh hpp",
    "C#": "cs",
    "CSS": "css less scss",
    "CSV": "csv tsv",
    "Go": "go",
    "HTML": "htm html",
    "JSON": "json jsonl",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "Kotlin": "kt kts",
    "Markdown": "markdown md",
    "PHP": "php",
    "Python": "py pyi",
    "Ruby": "rb",
    "Rust": "rs",
    "SQL": "sql",
    "Shell": "bash sh zsh",
    "Swift": "swift",
    "TOML": "toml",
    "TypeScript": "ts tsx",
    "XML": "svg xml",
    "YAML": "yaml yml",
    "text": "adoc log rst text txt",
}
_BY_ENDING = {ending: name for name, endings in _LANGUAGES.items() for ending in endings.split()}

_LEFT_OUT = frozenset(
    {
        ".bzr",
        ".cache",
        ".eggs",
        ".git",
        ".hg",
        ".hypothesis",
        ".idea",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".tox",
        ".venv",
        "__pycache__",
        "carstore-demo",
        "node_modules",
        "venv",
    }
)


def language_of(path: str) -> str:
    """The language of a file, by the end of its name."""
    name = path.rsplit("/", 1)[-1].lower()
    return _BY_ENDING.get(name.rsplit(".", 1)[-1], OTHER) if "." in name else OTHER


def is_left_out(name: str) -> bool:
    """Whether a folder of this name is passed over: caches, environments, version control."""
    return name in _LEFT_OUT

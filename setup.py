"""Everything a build needs is read from settings.ini, the one place for name, version, requirements and address."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(HERE / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
name, home = cfg["lib_name"], cfg["git_url"]


def absolute(text):
    "The README's links to files of the repository as addresses, for readers on PyPI; pictures as they are, not as pages."
    def address(match):
        start, target, end = match.groups()
        if re.match(r"[a-z]+:|#|/", target): return match[0]
        kind = "raw" if start.startswith("!") or start.startswith("src") else "blob"
        return f"{start}{home}/{kind}/{cfg['branch']}/{target}{end}"
    return re.sub(r'(!?\[[^\]]*\]\(|src="|href=")([^)"\s]+)([)"])', address, text)


readme = HERE / "README.md"
setup(
    name=name,
    version=cfg["version"],
    description=cfg["description"],
    long_description=absolute(readme.read_text(encoding="utf-8")) if readme.exists() else "",
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=home,
    project_urls={"Documentation": cfg["doc_host"] + cfg["doc_baseurl"], "Source": home, "Issues": f"{home}/issues",
                  "Changelog": f"{home}/blob/{cfg['branch']}/CHANGELOG.md"},
    license="Apache-2.0 AND CC-BY-SA-3.0",  # the code, and the bundled digits of MNIST
    license_files=["LICENSE", "vae_nb/bundled/README.md"],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[name, f"{name}.*"]),
    package_data={name: ["bundled/*", "py.typed", "*.pyi", "**/*.css", "**/*.js", "**/*.html"]},
    install_requires=cfg["requirements"].split(),
    extras_require={extra.removesuffix("_requirements"): cfg[extra].split() for extra in cfg if extra.endswith("_requirements")},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{name}={name}._modidx:d"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    zip_safe=False,
)

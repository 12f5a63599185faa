"""Puts libmigshare.so into the wheel, which therefore is bound to a platform but not to a Python version.

MIGSHARE_LIBRARY names the shared object; without it the release build of this source tree is taken. What is packed is
stripped; the original keeps its symbols.
"""

import os
import pathlib
import shutil
import subprocess

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

HERE = pathlib.Path(__file__).parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
LIBRARY = os.environ.get("MIGSHARE_LIBRARY", TARGET / "release" / "libmigshare.so")


class BuildWithLibrary(build_py):
    def run(self):
        if not pathlib.Path(LIBRARY).is_file():
            raise SystemExit(f"{LIBRARY} is not there: cargo build --release -p migshare-capi, or set MIGSHARE_LIBRARY")
        super().run()
        packed = pathlib.Path(self.build_lib) / "migshare" / "libmigshare.so.1"
        shutil.copy(LIBRARY, packed)
        subprocess.run(["strip", "--strip-unneeded", packed], check=True)


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return True


class AnyPythonWheel(bdist_wheel):
    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": AnyPythonWheel})

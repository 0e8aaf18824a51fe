"""What pyproject.toml cannot say: each child of kernels/ installs as memattn.kernels.<child>."""

from setuptools import find_packages, setup

KERNEL_PACKAGES = find_packages("kernels")

setup(
    packages=find_packages(include=["memattn", "memattn.*"])
    + [f"memattn.kernels.{name}" for name in KERNEL_PACKAGES],
    package_dir={
        f"memattn.kernels.{name}": f"kernels/{name}" for name in KERNEL_PACKAGES if "." not in name
    },
)

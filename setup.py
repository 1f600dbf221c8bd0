"""The distribution: packages tfkfac, nmt and models, their needs, and their commands."""

from setuptools import find_packages, setup

setup(
    name="tfkfac",
    version="0.1.0",
    description="K-FAC, a distributed second-order optimizer, for TensorFlow and Keras",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["tfkfac*", "nmt*", "models*"]),
    package_data={"": ["*.yaml", "*.html", "py.typed"]},
    install_requires=[
        # As old as the addons need them (constraints-addons.txt); docs/compatibility.md says which
        # combinations are tested. Left to itself, pip takes the newest.
        "tensorflow>=2.15,<2.22",
        "keras>=2.15",
        "numpy>=1.26",
        # models: original files of scientific data, and their checksums
        "h5py>=3.10",
        "google-crc32c>=1.5",
        # models: metrics, plots, configurations, progress
        "scikit-learn>=1.5",
        "matplotlib>=3.8",
        "pyyaml>=6.0",
        "rich>=13.0",
    ],
    extras_require={
        # Keras 2, for tfkfac alone: nmt needs Keras 3.
        "addons": ["tensorflow==2.15.1", "tensorflow-addons==0.23.0", "tqdm>=4.66"],
        "nmt": [
            "keras>=3.12",
            "keras-nlp>=0.32",
            "sentencepiece>=0.2",
            "sacrebleu>=2.4",
            # nmt-serve
            "starlette>=1.0",
            "uvicorn>=0.40",
        ],
        # nmt-export --format ctranslate2
        "ctranslate2": ["ctranslate2>=4.6"],
        # Built for this TensorFlow by `make horovod`; see docs/installation.md.
        "horovod": ["horovod==0.28.1"],
        "test": [
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.14",
            "types-PyYAML>=6.0",
            "tensorboard>=2.19",
            "ctranslate2>=4.6",
        ],
    },
    entry_points={
        "console_scripts": [
            "models-train = models.train:main",
            "hpcai500 = models.hpcai500.command:main",
            "models-plot = models.plot:main",
            "tfkfac-plan = tfkfac.plan_command:main",
            "nmt-average = nmt.average:main",
            "nmt-data = nmt.datasets:main",
            "nmt-evaluate = nmt.evaluate:main",
            "nmt-export = nmt.export_command:main",
            "nmt-score = nmt.score:main",
            "nmt-serve = nmt.serve:main",
            "nmt-train = nmt.train:main",
            "nmt-translate = nmt.translate:main",
        ],
    },
)

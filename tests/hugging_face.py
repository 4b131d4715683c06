"""What evodeploy uses of Hugging Face's `datasets`, read from the library's own files, where it is not installed.

Tests take the library itself where it can be imported: that the two answer alike is seen there.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa


class Image:
    def __init__(self, decode=True):
        self.decode = decode


class ClassLabel:
    def __init__(self, names):
        self.names = names


class Value:
    pass


def _features(schema):
    stated = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    kinds = {"Image": lambda each: Image(), "ClassLabel": lambda each: ClassLabel(each["names"])}
    return {name: kinds.get(each["_type"], lambda each: Value())(each) for name, each in stated.items()}


class Dataset:
    def __init__(self, table, features):
        self.table, self.features = table, features

    @classmethod
    def from_file(cls, path):
        with pa.memory_map(path) as file:
            table = pa.ipc.open_stream(file).read_all()
        return cls(table, _features(table.schema))

    def select_columns(self, names):
        return Dataset(self.table.select(names), {name: self.features.get(name) for name in names})

    def cast_column(self, name, feature):
        assert not feature.decode
        return self

    def flatten(self):
        return Dataset(self.table.flatten(), {})

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.table.column(key).to_pylist()
        return {name: values[0] for name, values in self.table.slice(key, 1).to_pydict().items()}


def load_from_disk(folder):
    home = Path(folder)
    if (home / "dataset_dict.json").exists():
        splits = json.loads((home / "dataset_dict.json").read_text())["splits"]
        return {split: load_from_disk(home / split) for split in splits}
    files = json.loads((home / "state.json").read_text())["_data_files"]
    return concatenate_datasets([Dataset.from_file(str(home / each["filename"])) for each in files])


def concatenate_datasets(parts):
    return Dataset(pa.concat_tables([part.table for part in parts]), parts[0].features)


MODULE = SimpleNamespace(
    Image=Image, Dataset=Dataset, load_from_disk=load_from_disk, concatenate_datasets=concatenate_datasets
)

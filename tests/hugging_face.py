"""What evodeploy uses of Hugging Face's `datasets`, read from the library's own files, where it is not installed.

Tests take the library itself where it can be imported: that the two answer alike is seen there.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa


class Image:
    pass


class ClassLabel:
    def __init__(self, names):
        self.names = names


def _features(schema):
    stated = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return {name: ClassLabel(each["names"]) if "names" in each else Image() for name, each in stated.items()}


class Dataset:
    def __init__(self, table, features):
        self.table = self.data = table
        self.features = features

    @classmethod
    def from_file(cls, path):
        with pa.memory_map(path) as file:
            table = pa.ipc.open_stream(file).read_all()
        return cls(table, _features(table.schema))

    def with_format(self, name):
        assert name == "arrow"
        return self

    def select_columns(self, names):
        return Dataset(self.table.select(names), {name: self.features[name] for name in names})

    def __len__(self):
        return self.table.num_rows

    def __getitem__(self, key):
        return self.table[key] if isinstance(key, slice) else self.table.slice(key, 1)


def load_from_disk(folder):
    home = Path(folder)
    if (home / "dataset_dict.json").exists():
        splits = json.loads((home / "dataset_dict.json").read_text())["splits"]
        return {split: load_from_disk(home / split) for split in splits}
    files = json.loads((home / "state.json").read_text())["_data_files"]
    return concatenate_datasets([Dataset.from_file(str(home / each["filename"])) for each in files])


def concatenate_datasets(parts):
    return Dataset(pa.concat_tables([part.table for part in parts]), parts[0].features)


MODULE = SimpleNamespace(Dataset=Dataset, load_from_disk=load_from_disk, concatenate_datasets=concatenate_datasets)

#!/usr/bin/python3
"""Every message, field, enum, enum value, service and method of the contract has a comment; each
service has a file of its own. (buf lint says so too, where buf can be had.)"""

import pathlib
import subprocess
import tempfile
import unittest

from google.protobuf import descriptor_pb2

import repository

GOOGLEAPIS = "/usr/share/gocode/src/github.com/gogo/googleapis"


def descriptors(root):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        subprocess.run(
            ["protoc", f"-I{root}", f"-I{GOOGLEAPIS}", "--include_source_info",
             f"--descriptor_set_out={out}"] +
            [str(p) for p in sorted(pathlib.Path(root).rglob("*.proto"))], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


def elements(file):
    """(path, full name) of everything that needs a comment; the path as in SourceCodeInfo."""
    def message(path, prefix, item):
        name = f"{prefix}.{item.name}"
        if item.options.map_entry:
            return
        yield path, name
        for i, field in enumerate(item.field):
            yield path + (2, i), f"{name}.{field.name}"
        for i, oneof in enumerate(item.oneof_decl):
            if not oneof.name.startswith("_"):  # Made up for `optional`.
                yield path + (8, i), f"{name}.{oneof.name}"
        for i, nested in enumerate(item.nested_type):
            yield from message(path + (3, i), name, nested)
        for i, nested in enumerate(item.enum_type):
            yield from enum(path + (4, i), name, nested)

    def enum(path, prefix, item):
        name = f"{prefix}.{item.name}"
        yield path, name
        for i, value in enumerate(item.value):
            yield path + (2, i), f"{name}.{value.name}"

    for i, item in enumerate(file.message_type):
        yield from message((4, i), file.package, item)
    for i, item in enumerate(file.enum_type):
        yield from enum((5, i), file.package, item)
    for i, item in enumerate(file.service):
        yield (6, i), f"{file.package}.{item.name}"
        for j, method in enumerate(item.method):
            yield (6, i, 2, j), f"{file.package}.{item.name}.{method.name}"


def bare(file):
    """Full names of the elements without a comment of at least two words or one long one."""
    comments = {tuple(place.path): (place.leading_comments + place.trailing_comments).strip()
                for place in file.source_code_info.location}
    return [name for path, name in elements(file) if len(comments.get(path, "")) < 5]


class ProtoCommentsTest(unittest.TestCase):
    def test_everything_has_a_comment(self):
        files = descriptors(repository.ROOT / "proto")

        self.assertGreater(len(files), 5)
        self.assertEqual([], [name for file in files for name in bare(file)])

    def test_one_service_a_file_and_folder_is_package(self):
        for file in descriptors(repository.ROOT / "proto"):
            self.assertLessEqual(len(file.service), 1, file.name)
            self.assertEqual(file.package.replace(".", "/"), str(pathlib.Path(file.name).parent))

    def test_a_planted_bare_field_is_caught(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "a.proto").write_text(
                'syntax = "proto3";\npackage a;\n// A comment.\nmessage M {\n'
                "  // A comment.\n  int32 said = 1;\n\n  int32 bare = 2;\n}\n")

            found = bare(descriptors(folder)[0])

        self.assertEqual(["a.M.bare"], found)


if __name__ == "__main__":
    unittest.main()

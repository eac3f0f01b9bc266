#!/usr/bin/python3
"""Writes README.md's reference of job fields from the comments of the contract.

usage: readme_reference.py [--write]     without --write it prints the section

readme_test.py fails when the section in README.md is not what this prints."""

import pathlib
import re
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

import repository

BEGIN, END = "<!-- job fields: written by tests/house/readme_reference.py -->", "<!-- end -->"
TYPES = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "true or false",
         9: "text", 13: "uint32"}
# Explained once, in a table of its own, however often it is used.
ONCE = "Initializer"


class Contract:
    """Messages, enums and their comments, by full name."""

    def __init__(self):
        root = repository.ROOT / "proto"
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "set"
            subprocess.run(["protoc", f"-I{root}", "--include_source_info", "--include_imports",
                            f"--descriptor_set_out={out}", str(root / "gradwatch/v1/job.proto")],
                           check=True)
            files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
        self.messages, self.enums, self.comments = {}, {}, {}
        for file in files:
            places = {tuple(p.path): " ".join((p.leading_comments or p.trailing_comments).split())
                      for p in file.source_code_info.location}
            for i, item in enumerate(file.message_type):
                self._message(f".{file.package}.{item.name}", item, (4, i), places)
            for i, item in enumerate(file.enum_type):
                self._enum(f".{file.package}.{item.name}", item, (5, i), places)

    def _message(self, name, item, path, places):
        self.messages[name] = item
        for i, field in enumerate(item.field):
            self.comments[f"{name}.{field.name}"] = places.get(path + (2, i), "")
        for i, nested in enumerate(item.nested_type):
            self._message(f"{name}.{nested.name}", nested, path + (3, i), places)
        for i, nested in enumerate(item.enum_type):
            self._enum(f"{name}.{nested.name}", nested, path + (4, i), places)

    def _enum(self, name, item, path, places):
        self.enums[name] = [(v.name, places.get(path + (2, i), ""))
                            for i, v in enumerate(item.value) if v.number != 0]

    def rows(self, message, prefix=""):
        """(field's path, type, comment) of every setting of a message."""
        for field in self.messages[message].field:
            comment = self.comments[f"{message}.{field.name}"]
            if comment.startswith("Output only"):
                continue
            name = prefix + field.name
            nested = self.messages.get(field.type_name)
            many = field.label == 3
            if nested is not None and nested.options.map_entry:
                yield name, "map of text", comment
            elif nested is None:
                kind = TYPES.get(field.type, "one of " + ", ".join(
                    f"`{value}`" for value, _ in self.enums.get(field.type_name, [])))
                yield name, ("list of " if many else "") + kind, comment
            elif nested.name == ONCE:
                yield name, f"[{ONCE}](#{ONCE.lower()})", comment
            else:
                yield name, "list" if many else "", comment
                yield from self.rows(field.type_name, name + ("[]." if many else "."))


def escape(text):
    """Markdown that shows `text` in a cell of a table."""
    return re.sub(r"([|*<])", r"\\\1", text)


def section():
    contract = Contract()

    def table(rows):
        return ["| field | type | meaning |", "|---|---|---|"] + [
            f"| `{name}` | {kind} | {escape(comment)} |" for name, kind, comment in rows]

    lines = [BEGIN, ""] + table(contract.rows(".gradwatch.v1.Job"))
    lines += ["", f"#### {ONCE}", ""]
    lines += table(contract.rows(f".gradwatch.v1.{ONCE}"))
    return "\n".join(lines + ["", END])


def replace(text):
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: section(), text,
                  flags=re.DOTALL)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        readme = repository.ROOT / "README.md"
        readme.write_text(replace(readme.read_text()))
    else:
        print(section())

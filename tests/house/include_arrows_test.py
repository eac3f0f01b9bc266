#!/usr/bin/python3
"""Each room includes only what stands below it: reads the #include lines and fails on an arrow that
points the wrong way. The table is DESIGN's "house"; README.md shows it to people."""

import collections
import pathlib
import re
import unittest

import repository

# What a room may include, beside its own files and the C++ library. Rooms are folders below server/;
# "main" is the files directly in server/. What both ends of the wire need (proto/support) is free of
# gRPC, but for the one file that is named after it.
ENGINE = ("data", "nn", "clip", "stats", "train")
CONTRACT = ("messages", "support")
WIRE = CONTRACT + ("stubs", "support_grpc")
BELOW = {
    "base": (),
    "nn": ("base",),
    "data": ("base",) + CONTRACT,
    "clip": ("base",) + CONTRACT,
    "stats": ("base",) + CONTRACT,
    "train": ("base", "data", "nn", "clip", "stats") + CONTRACT,
    "alerts": ("base", "stats") + CONTRACT,
    "jobs": ("base",) + ENGINE + ("alerts",) + CONTRACT,
    "metrics": ("base", "stats", "alerts", "jobs") + CONTRACT,
    "rpc": ("base",) + ENGINE + ("alerts", "jobs", "metrics") + WIRE,
    "web": ("base", "metrics", "rpc") + CONTRACT,
    "main": ("base",) + ENGINE + ("alerts", "jobs", "metrics", "rpc", "web") + WIRE,
    "support": ("messages",),
    "support_grpc": ("messages", "support"),
    "client": WIRE,
}

# Libraries that are kept in few rooms.
LIBRARIES = {
    "Eigen": (r"^(Eigen|unsupported/Eigen)/", set(ENGINE)),
    "gRPC": (r"^(grpc|grpcpp|grpc\+\+)/", {"rpc", "web", "main", "support_grpc", "client"}),
    "prometheus-cpp": (r"^prometheus/", {"metrics"}),
    "Boost": (r"^boost/", {"web"}),
    "CLI11": (r"^CLI/", {"main", "client"}),
    "messages": (r"^google/(protobuf|rpc)/", set(BELOW) - {"base", "nn"}),
}

# Nor may they be reached by way of a header: the engine shows no Eigen to the rooms above it, and
# what stands below rpc builds without gRPC.
HIDDEN_FROM = {
    "Eigen": set(BELOW) - set(ENGINE) - {"base"},
    "gRPC": set(ENGINE) | {"base", "alerts", "jobs", "support"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)


def room_of(path):
    """The room that a path of ours (relative to the root) belongs to, or None."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[:2] == ("proto", "support"):
        return "support_grpc" if parts[-1].startswith("grpc_") else "support"
    if parts[0] == "client":
        return "client"
    if parts[0] == "server":
        return parts[1] if len(parts) > 2 else "main"
    if parts[:2] == ("gradwatch", "v1"):
        return "stubs" if path.endswith(".grpc.pb.h") else "messages"
    return None


def includes(text):
    return [target for _, target in INCLUDE.findall(text)]


def violations(sources):
    """Sentences about every wrong arrow in `sources`, a map from path to text."""
    found = []
    for path, text in sorted(sources.items()):
        room = room_of(path)
        if room not in BELOW:
            found.append(f"{path}: the room '{room}' is not in the table of "
                         "include_arrows_test.py")
            continue
        for target in includes(text):
            other = room_of(target)
            if other and other != room and other not in BELOW[room]:
                found.append(f"{path} includes {target}: '{room}' may include only "
                             f"{', '.join(BELOW[room]) or 'nothing of ours'}")
            for library, (pattern, rooms) in LIBRARIES.items():
                if re.match(pattern, target) and room not in rooms and other is None:
                    found.append(f"{path} includes {target}: {library} is not for '{room}'")
    for library, rooms in HIDDEN_FROM.items():
        for path in sorted(sources):
            if room_of(path) in rooms:
                found += chain_to(library, path, sources)
    return found


def chain_to(library, path, sources):
    """A sentence about how `path` reaches a header of ours that includes `library`, if it does."""
    pattern = LIBRARIES[library][0]
    queue, parent = collections.deque([path]), {path: None}
    while queue:
        current = queue.popleft()
        targets = includes(sources.get(current, ""))
        if current != path and any(re.match(pattern, target) for target in targets):
            chain = [current]
            while parent[chain[-1]]:
                chain.append(parent[chain[-1]])
            return [f"{path} sees {library} by way of {' <- '.join(chain[:-1])}"]
        for target in targets:
            # The stubs are generated and include gRPC.
            if target.endswith(".grpc.pb.h") and library == "gRPC" and current != path:
                return [f"{path} sees gRPC by way of {current}, which includes {target}"]
            if target in sources and target not in parent:
                parent[target] = current
                queue.append(target)
    return []


def project_sources():
    return {str(path): repository.read(path) for path in repository.files()
            if path.suffix in (".h", ".cc", ".inc") and
            (path.parts[0] in ("server", "client") or path.parts[:2] == ("proto", "support"))}


class IncludeArrowsTest(unittest.TestCase):
    def test_the_table_has_no_cycle(self):
        done = set()
        while len(done) < len(BELOW):
            ready = [room for room in BELOW if room not in done and
                     all(below in done or below not in BELOW for below in BELOW[room])]
            self.assertTrue(ready, f"a cycle among {set(BELOW) - done}")
            done.update(ready)

    def test_the_project_follows_the_table(self):
        sources = project_sources()

        self.assertGreater(len(sources), 20)
        self.assertEqual([], violations(sources))

    def test_planted_wrong_arrows_are_caught(self):
        planted = {
            "server/base/a.h": '#include "server/jobs/job.h"\n',
            "server/nn/a.cc": '#include "gradwatch/v1/job.pb.h"\n',
            "server/nn/b.h": "#include <google/protobuf/message.h>\n",
            "server/clip/a.h": '  #  include "server/nn/network.h"\n',
            "server/alerts/a.cc": "#include <Eigen/Core>\n",
            "server/jobs/a.cc": "#include <grpcpp/grpcpp.h>\n",
            "server/train/a.cc": '#include "gradwatch/v1/job_service.grpc.pb.h"\n',
            "server/rpc/a.cc": "#include <prometheus/registry.h>\n",
            "server/jobs/b.cc": '#include "proto/support/grpc_status.h"\n',
            "client/cli/a.cc": '#include "server/base/status.h"\n',
            "server/novel/a.cc": "",
        }

        for path, text in planted.items():
            self.assertEqual(1, len(violations({path: text})), (path, text))

    def test_a_header_that_shows_eigen_upward_is_caught(self):
        sources = {
            "server/jobs/a.cc": '#include "server/train/trainer.h"\n',
            "server/train/trainer.h": '#include "server/nn/matrix.h"\n',
            "server/nn/matrix.h": "#include <Eigen/Core>\n",
        }

        self.assertEqual(1, len(violations(sources)))

    def test_a_header_that_brings_grpc_into_the_core_is_caught(self):
        sources = {
            "server/jobs/a.cc": '#include "proto/support/errors.h"\n',
            "proto/support/errors.h": '#include "gradwatch/v1/job_service.grpc.pb.h"\n',
        }

        found = violations(sources)

        self.assertEqual(2, len(found), found)
        self.assertTrue(any("sees gRPC by way of" in sentence for sentence in found))

    def test_right_arrows_pass(self):
        sources = {
            "server/base/a.h": '#include <vector>\n#include "absl/status/status.h"\n',
            "server/nn/a.cc": '#include <Eigen/Core>\n#include "server/base/batch.h"\n',
            "server/jobs/a.cc": '#include "server/train/t.h"\n#include "gradwatch/v1/job.pb.h"\n',
            "server/metrics/a.cc": "#include <prometheus/registry.h>\n",
            "server/rpc/a.cc": '#include <grpcpp/server.h>\n#include "proto/support/grpc_status.h"\n',
            "server/jobs/b.cc": '#include "proto/support/errors.h"\n',
            "server/main.cc": '#include "server/web/http_server.h"\n',
            "client/cli/a.cc": '#include "client/cpp/client.h"\n#include <CLI/CLI.hpp>\n',
        }

        self.assertEqual([], violations(sources))


if __name__ == "__main__":
    unittest.main()

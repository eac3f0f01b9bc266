#!/usr/bin/python3
"""Each room includes only what stands below it: reads the #include lines and fails on an arrow that
points the wrong way. The table is DESIGN's "house"; README.md shows it to people."""

import collections
import pathlib
import re
import unittest

import repository

# What a room may include, beside its own files and the C++ library. Rooms are folders below server/;
# "main" is the files directly in server/.
ENGINE = ("data", "nn", "clip", "stats", "train")
BELOW = {
    "base": (),
    "nn": ("base",),
    "data": ("base", "messages"),
    "clip": ("base", "messages"),
    "stats": ("base", "messages"),
    "train": ("base", "data", "nn", "clip", "stats", "messages"),
    "alerts": ("base", "stats", "messages"),
    "jobs": ("base",) + ENGINE + ("alerts", "messages"),
    "metrics": ("base", "stats", "alerts", "jobs", "messages"),
    "rpc": ("base",) + ENGINE + ("alerts", "jobs", "metrics", "messages", "stubs", "proto_support"),
    "web": ("base", "metrics", "rpc", "messages"),
    "main": ("base",) + ENGINE + ("alerts", "jobs", "metrics", "rpc", "web", "messages", "stubs",
                                  "proto_support"),
    "proto_support": ("messages",),
    "client": ("messages", "stubs", "proto_support"),
}

# Libraries that are kept in few rooms. Eigen is for the arithmetic, and no header that a room above
# the engine reaches may show it.
LIBRARIES = {
    "Eigen": (r"^(Eigen|unsupported/Eigen)/", set(ENGINE)),
    "gRPC": (r"^(grpc|grpcpp|grpc\+\+)/", {"rpc", "web", "main", "proto_support", "client"}),
    "prometheus-cpp": (r"^prometheus/", {"metrics"}),
    "Boost": (r"^boost/", {"web"}),
    "CLI11": (r"^CLI/", {"main", "client"}),
    "messages": (r"^(google/(protobuf|rpc)|gradwatch)/", set(BELOW) - {"base", "nn"}),
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)


def room_of(path):
    """The room that a path of ours (relative to the root) belongs to, or None."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[:2] == ("proto", "support"):
        return "proto_support"
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
    return found + leaks(sources)


def leaks(sources):
    """Chains by which a file above the engine reaches a header that includes Eigen."""
    def shows_eigen(path):
        return any(re.match(LIBRARIES["Eigen"][0], t) for t in includes(sources.get(path, "")))

    found = []
    for path in sorted(sources):
        if room_of(path) in ENGINE + ("base", None):
            continue
        queue, parent = collections.deque([path]), {path: None}
        while queue:
            current = queue.popleft()
            if current != path and shows_eigen(current):
                chain = [current]
                while parent[chain[-1]]:
                    chain.append(parent[chain[-1]])
                found.append(f"{path} sees Eigen by way of {' <- '.join(chain[:-1])}")
                break
            for target in includes(sources.get(current, "")):
                if target in sources and target not in parent:
                    parent[target] = current
                    queue.append(target)
    return found


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

    def test_right_arrows_pass(self):
        sources = {
            "server/base/a.h": '#include <vector>\n#include "absl/status/status.h"\n',
            "server/nn/a.cc": '#include <Eigen/Core>\n#include "server/base/batch.h"\n',
            "server/jobs/a.cc": '#include "server/train/t.h"\n#include "gradwatch/v1/job.pb.h"\n',
            "server/metrics/a.cc": "#include <prometheus/registry.h>\n",
            "server/rpc/a.cc": '#include <grpcpp/server.h>\n#include "proto/support/status.h"\n',
            "server/main.cc": '#include "server/web/http_server.h"\n',
            "client/cli/a.cc": '#include "client/cpp/client.h"\n#include <CLI/CLI.hpp>\n',
        }

        self.assertEqual([], violations(sources))


if __name__ == "__main__":
    unittest.main()

"""The runtime on ONNX Runtime as a host, but the video graph crashes: crashing_host.py."""

from __future__ import annotations

import os

from vtr_conformance.hosts import RuntimeHost, open_in_process
from vtr_conformance.hosts.base import Arrays
from vtr_conformance.hosts.serve import serve


class Crashing(RuntimeHost):
    name = "crashing"

    def run(self, graph: str, feed: Arrays) -> Arrays:
        if graph == "video":
            os.abort()
        return super().run(graph, feed)


serve(lambda bundle: Crashing(open_in_process(bundle, "onnx-cpu").model))

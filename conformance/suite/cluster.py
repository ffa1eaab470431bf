"""The cluster that is tested."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

from . import build

DATA = build.ROOT / "target/conformance"


@contextlib.contextmanager
def up(mirror, nodes, keep):
    """`plim up` with that many nodes and `mirror` (an address) instead of registry.k8s.io. Gives the kubeconfig."""
    plim = [str(build.plim()), "--data", str(DATA / "cluster")]
    _down(plim)
    shutil.rmtree(DATA, ignore_errors=True)
    (DATA / "cluster").mkdir(parents=True)
    (DATA / "cluster/registries.yaml").write_text(json.dumps({"mirrors": {"registry.k8s.io": [mirror]}}))
    subprocess.run([*plim, "up", "--detach", "--port", "0", "--nodes", str(nodes)], check=True)
    try:
        yield DATA / "cluster/kubeconfig"
    finally:
        if keep:
            build.say(f"the cluster stays: export KUBECONFIG={DATA / 'cluster/kubeconfig'}")
        else:
            _down(plim)


def _down(plim):
    if (DATA / "cluster").exists():
        subprocess.run([*plim, "down"], check=True, stdout=subprocess.DEVNULL)

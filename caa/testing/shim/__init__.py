"""A client that speaks as a Kata shim does, the Go one or runtime-rs: for demo, tests and benchmarks.

    pod = await Shim("/run/peerpod/hypervisor.sock", Kind.GO).start(PodOptions(name="web", netns="/run/netns/pod"))
    web = await pod.container("web", ["httpd", "-f", "-p", "8080"])
    result = await pod.exec(web, ["cat"], stdin=b"hello")          # ExecResult(stdout, stderr, exit_code)
    await pod.stop()

What each shim does differently is data (`kinds`); the order of the calls is `pod`, the requests' content `requests`.
"""

from caa.testing.shim.kinds import ContainerOptions, ExecResult, Kind, PodOptions
from caa.testing.shim.link import Timing
from caa.testing.shim.pod import Pod
from caa.testing.shim.process import Process
from caa.testing.shim.shim import Shim

__all__ = ["ContainerOptions", "ExecResult", "Kind", "Pod", "PodOptions", "Process", "Shim", "Timing"]

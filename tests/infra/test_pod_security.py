"""The restricted Pod Security Standard, rule by rule, over every pod template that infra/ renders.

https://kubernetes.io/docs/concepts/security/pod-security-standards, of Kubernetes 1.37: what
`enforce: restricted` refuses in a namespace. A read-only root file system and limits are ours, beyond the standard.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.infra.render import LOCAL, Object, containers, find, named, pod_templates
from tests.infra.render import render as rendered

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes"}  # fmt: skip
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
ABSENT = object()


def _contexts(pod: Object) -> list[Object]:
    return [pod.get("securityContext", {}), *(one.get("securityContext", {}) for one in containers(pod))]


def _each(pod: Object, holds: Callable[[Object], bool]) -> bool:
    return all(holds(one.get("securityContext", {})) for one in containers(pod))


def _in_effect(pod: Object, key: str) -> list[Any]:
    whole = pod.get("securityContext", {}).get(key, ABSENT)
    return [one.get("securityContext", {}).get(key, whole) for one in containers(pod)]


RULES: dict[str, Callable[[Object], bool]] = {
    "no host process": lambda pod: not any(one.get("windowsOptions", {}).get("hostProcess") for one in _contexts(pod)),
    "no host namespaces": lambda pod: not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    "not privileged": lambda pod: _each(pod, lambda one: not one.get("privileged")),
    "drops all capabilities": lambda pod: _each(pod, lambda one: "ALL" in one.get("capabilities", {}).get("drop", [])),
    "adds none but NET_BIND_SERVICE": lambda pod: _each(
        pod, lambda one: set(one.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"}
    ),
    "volumes of the allowed kinds": lambda pod: all(
        set(volume) - {"name"} <= VOLUMES for volume in pod.get("volumes", [])
    ),
    "no host ports": lambda pod: (
        not any(port.get("hostPort") for one in containers(pod) for port in one.get("ports", []))
    ),
    "no host in probes and hooks": lambda pod: '"host":' not in repr(containers(pod)).replace("'", '"'),
    "AppArmor not overridden": lambda pod: all(
        one.get("appArmorProfile", {}).get("type", "RuntimeDefault") in ("RuntimeDefault", "Localhost")
        for one in _contexts(pod)
    ),
    "SELinux type": lambda pod: all(
        one.get("seLinuxOptions", {}).get("type", "") in SELINUX
        and not {"user", "role"} & set(one.get("seLinuxOptions", {}))
        for one in _contexts(pod)
    ),
    "proc mount": lambda pod: _each(pod, lambda one: one.get("procMount", "Default") == "Default"),
    "safe sysctls": lambda pod: {one["name"] for one in pod.get("securityContext", {}).get("sysctls", [])} <= SYSCTLS,
    "no privilege escalation": lambda pod: _each(pod, lambda one: one.get("allowPrivilegeEscalation") is False),
    "runs as non-root": lambda pod: all(value is True for value in _in_effect(pod, "runAsNonRoot")),
    "no user 0": lambda pod: 0 not in [one.get("runAsUser") for one in _contexts(pod)],
    "seccomp profile": lambda pod: all(
        value is not ABSENT and value["type"] in ("RuntimeDefault", "Localhost")
        for value in _in_effect(pod, "seccompProfile")
    ),
    # Ours, beyond the standard.
    "read-only root file system": lambda pod: _each(pod, lambda one: one.get("readOnlyRootFilesystem") is True),
    "a numeric user": lambda pod: all(isinstance(value, int) for value in _in_effect(pod, "runAsUser")),
    "memory is requested and limited": lambda pod: all(
        "memory" in one.get("resources", {}).get(key, {}) for one in containers(pod) for key in ("requests", "limits")
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_pod_is_restricted(rule: str) -> None:
    seen = 0
    for folder in LOCAL:
        for manifest in rendered(folder):
            for template in pod_templates(manifest):
                seen += 1
                assert RULES[rule](template["spec"]), f"infra/{folder}: {named(manifest)}"
    assert seen > 20


BREACHES: dict[str, Callable[[Object, Object], Any]] = {
    "no host process": lambda pod, one: pod["securityContext"].update(windowsOptions={"hostProcess": True}),
    "no host namespaces": lambda pod, one: pod.update(hostPID=True),
    "not privileged": lambda pod, one: one["securityContext"].update(privileged=True),
    "drops all capabilities": lambda pod, one: one["securityContext"].update(capabilities={"drop": ["CHOWN"]}),
    "adds none but NET_BIND_SERVICE": lambda pod, one: one["securityContext"].update(
        capabilities={"add": ["SYS_ADMIN"]}
    ),
    "volumes of the allowed kinds": lambda pod, one: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "no host ports": lambda pod, one: one.update(ports=[{"containerPort": 1, "hostPort": 1}]),
    "no host in probes and hooks": lambda pod, one: one.update(
        livenessProbe={"httpGet": {"host": "example.com", "port": 1}}
    ),
    "AppArmor not overridden": lambda pod, one: one["securityContext"].update(appArmorProfile={"type": "Unconfined"}),
    "SELinux type": lambda pod, one: one["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
    "proc mount": lambda pod, one: one["securityContext"].update(procMount="Unmasked"),
    "safe sysctls": lambda pod, one: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "no privilege escalation": lambda pod, one: one["securityContext"].pop("allowPrivilegeEscalation"),
    "runs as non-root": lambda pod, one: one["securityContext"].update(runAsNonRoot=False),
    "no user 0": lambda pod, one: one["securityContext"].update(runAsUser=0),
    "seccomp profile": lambda pod, one: pod["securityContext"].pop("seccompProfile"),
    "read-only root file system": lambda pod, one: one["securityContext"].update(readOnlyRootFilesystem=False),
    "a numeric user": lambda pod, one: pod["securityContext"].pop("runAsUser"),
    "memory is requested and limited": lambda pod, one: one["resources"].pop("limits"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_breach_of_the_rule_is_seen(rule: str) -> None:
    pod = copy.deepcopy(next(pod_templates(find("base", "Deployment", "mlflow")))["spec"])
    BREACHES[rule](pod, pod["initContainers"][0])
    assert not RULES[rule](pod)

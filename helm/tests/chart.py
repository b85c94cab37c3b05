"""Tests of the chart: helm lint, golden renders, bad values, and the schemas of Kubernetes' API.

`helm/tests/run --update` rewrites the golden renders; review the difference before you commit it.
"""

import pathlib
import re
import subprocess
import sys
import unittest

import kubernetes_validate
import yaml
from kubernetes_validate.utils import all_versions

HERE = pathlib.Path(__file__).parent
CHART = HERE.parent / "shoal"
# The sets of values to render: the chart's defaults, its values for high availability, and ours.
VALUES = {
    "default": [],
    "ha": [CHART / "values-ha.yaml"],
    **{path.stem: [path] for path in sorted((HERE / "values").glob("*.yaml"))},
}
OLDEST = (1, 29)
# Without this, a helm built from source assumes an old Kubernetes.
KUBERNETES = ["--kube-version", "1.34"]
# Types of the Prometheus operator: Kubernetes has no schemas for them.
FOREIGN = "monitoring.coreos.com/v1"


def helm(*arguments):
    return subprocess.run(["helm", *map(str, arguments)], capture_output=True, text=True)


def flags(files):
    return [flag for path in files for flag in ("--values", path)]


def render(files):
    return helm("template", "shoal", "--namespace", "shoal", *KUBERNETES, CHART, *flags(files))


def template(files):
    rendered = render(files)
    assert rendered.returncode == 0, rendered.stderr
    return rendered.stdout


def golden(name):
    return HERE / "golden" / f"{name}.yaml"


def objects(text):
    return [each for each in yaml.safe_load_all(text) if each]


def pods(manifests):
    """Name and spec of each Pod and pod template."""
    for each in manifests:
        spec = each.get("spec", {})
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], spec
        elif "template" in spec:
            yield each["metadata"]["name"], spec["template"]["spec"]


def versions():
    known = sorted(tuple(map(int, version.split("."))) for version in all_versions())
    return [f"{major}.{minor}" for major, minor, *_ in known if (major, minor) >= OLDEST]


class Chart(unittest.TestCase):
    maxDiff = None

    def test_lint_is_clean(self):
        for name, files in VALUES.items():
            with self.subTest(values=name):
                lint = helm("lint", "--strict", "--quiet", *KUBERNETES, CHART, *flags(files))
                self.assertEqual((lint.returncode, lint.stdout), (0, ""), lint.stderr)

    def test_renders_are_as_recorded(self):
        for name, files in VALUES.items():
            with self.subTest(values=name):
                recorded = golden(name).read_text()
                self.assertMultiLineEqual(recorded, template(files), "see `helm/tests/run --update`")

    def test_bad_values_are_refused_by_name(self):
        bad = sorted((HERE / "bad").glob("*.yaml"))
        self.assertGreater(len(bad), 0)
        for path in bad:
            with self.subTest(bad=path.stem):
                first = path.read_text().splitlines()[0]
                expected = first.removeprefix("# refused: ")
                refused = render([path])
                self.assertNotEqual(refused.returncode, 0, "bad values were accepted")
                self.assertIn("values don't meet the specifications of the schema", refused.stderr)
                self.assertIn(expected, refused.stderr)

    def test_every_value_has_a_comment(self):
        lines = (CHART / "values.yaml").read_text().splitlines()
        for above, line in zip(lines, lines[1:]):
            # Deeper values may be explained at their section.
            if re.match(r"( {2})?\w+:", line):
                self.assertIn("#", above, f"{line} has no comment")

    def test_manifests_are_valid_for_every_version(self):
        self.assertIn("1.34", versions())
        for name, files in VALUES.items():
            manifests = [each for each in objects(template(files)) if each["apiVersion"] != FOREIGN]
            for version in versions():
                with self.subTest(values=name, version=version):
                    for each in manifests:
                        kubernetes_validate.validate(each, version, strict=True)

    def test_an_unknown_property_makes_a_manifest_invalid(self):
        (pod,) = [each for each in objects(template([])) if each["kind"] == "Pod"]
        pod["spec"]["enableServiceLink"] = False
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, versions()[-1], strict=True)

    def test_examples_are_valid_for_every_version(self):
        for path in sorted((CHART / "examples").glob("*.yaml")):
            for version in versions():
                with self.subTest(example=path.name, version=version):
                    for each in objects(path.read_text()):
                        kubernetes_validate.validate(each, version, strict=True)

    def test_variables_of_a_container_are_unique(self):
        for name, files in VALUES.items():
            for pod, spec in pods(objects(template(files))):
                for container in spec["containers"]:
                    with self.subTest(values=name, pod=pod):
                        names = [variable["name"] for variable in container.get("env", [])]
                        self.assertEqual(len(names), len(set(names)), names)

    def test_a_drain_fits_into_the_grace_period(self):
        # Seconds from SIGTERM to the end, at most: leave_patience and the shutdown, or the last blocks.
        drains = {"dht-node": 52, "peer": 5, "tracker": 5}
        for name, files in VALUES.items():
            for pod, spec in pods(objects(template(files))):
                with self.subTest(values=name, pod=pod):
                    hook = spec["containers"][0].get("lifecycle", {}).get("preStop", {})
                    seconds = hook.get("sleep", {}).get("seconds", 0) + drains.get(pod, 0)
                    self.assertLessEqual(seconds, spec.get("terminationGracePeriodSeconds", 30))

    def test_an_autoscaled_peer_has_no_replicas_of_its_own(self):
        (peer,) = [
            each["spec"]
            for each in objects(template(VALUES["everything"]))
            if each["kind"] == "Deployment"
        ]
        self.assertNotIn("replicas", peer)

    def test_each_alert_has_a_severity_a_summary_and_a_runbook(self):
        rules = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
        for rule in [rule for group in rules["groups"] for rule in group["rules"]]:
            with self.subTest(alert=rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
                for text in ("summary", "runbook"):
                    self.assertTrue(rule["annotations"][text])


def update():
    for name, files in VALUES.items():
        golden(name).write_text(template(files))
        print(f"wrote {golden(name).relative_to(HERE.parent.parent)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        update()
    else:
        unittest.main()

"""The launchers: their syntax, and that they name flags and files that exist."""

import re
import subprocess

import pytest
import yaml
from absl import flags

from gptjax import cli
from tests.conftest import ROOT

LAUNCHERS = sorted((ROOT / 'scripts' / 'launch').iterdir())


@pytest.mark.parametrize('path', LAUNCHERS, ids=lambda path: path.name)
def test_launchers_name_flags_that_exist(path):
    values = flags.FlagValues()
    cli.define_flags(values, [])
    used = re.findall(r'(?<= )--([a-z_]+)=?', path.read_text())
    ours = {name for name in used if name in values}
    assert ours >= {'config', 'mode'}
    for file in re.findall(r'configs/\w+\.py|scripts/launch/\S+\.(?:sh|yaml)', path.read_text()):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize('path', [x for x in LAUNCHERS if x.suffix == '.sh'], ids=lambda p: p.name)
def test_scripts_parse(path):
    assert subprocess.run(['bash', '-n', str(path)], check=False).returncode == 0


# Of the custom resource jobset.x-k8s.io/v1alpha2 and of batch/v1, core/v1: fields used, and types.
FIELDS = {
    'JobSet': {'apiVersion': str, 'kind': str, 'metadata': dict, 'spec': dict},
    'JobSet.spec': {'failurePolicy': dict, 'network': dict, 'replicatedJobs': list},
    'replicatedJob': {'name': str, 'replicas': int, 'template': dict},
    'Job.spec': {
        **dict.fromkeys(('parallelism', 'completions', 'backoffLimit'), int),
        'completionMode': str,
        'template': dict,
    },
    'Pod.spec': {
        'restartPolicy': str,
        'terminationGracePeriodSeconds': int,
        'containers': list,
        'volumes': list,
    },
    'container': {
        **dict.fromkeys(('name', 'image'), str),
        **dict.fromkeys(('command', 'env', 'volumeMounts'), list),
        'resources': dict,
    },
}


def test_the_jobset_has_fields_of_its_schema_and_the_flags_of_processes():
    jobset = yaml.safe_load((ROOT / 'scripts' / 'launch' / 'jobset.yaml').read_text())
    assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    (replicated,) = jobset['spec']['replicatedJobs']
    job = replicated['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']
    found = dict(
        zip(FIELDS, (jobset, jobset['spec'], replicated, job, pod, container), strict=True)
    )
    for name, value in found.items():
        assert {key: type(x) for key, x in value.items()} == FIELDS[name], name
    # Each pod is one process, and the pod of index 0 has the name that all look for.
    flags_ = dict(re.findall(r'--(\w+)=(\S+)', ' '.join(container['command'])))
    assert list(flags_)[-3:] == list(cli.PROCESS_FLAGS)
    assert int(flags_['num_processes']) == job['parallelism'] == job['completions']
    name = jobset['metadata']['name']  # also the subdomain of its pods
    host = f'{name}-{replicated["name"]}-0-0.{name}'
    assert flags_['coordinator'].partition(':')[0] == host
    assert job['completionMode'] == 'Indexed' and jobset['spec']['network']['enableDNSHostnames']
    (variable,) = container['env']
    assert flags_['process_id'] == f'$({variable["name"]})'
    assert container['volumeMounts'][0]['name'] == pod['volumes'][0]['name']
    assert flags_['workdir'].startswith(container['volumeMounts'][0]['mountPath'])

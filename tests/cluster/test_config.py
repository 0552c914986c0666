"""The cluster files as Ray reads them, and the code, libraries and packages on the nodes."""

import re
import tomllib
import zipfile

import boto3
import pytest
import yaml
from botocore.session import get_session
from botocore.validate import ParamValidator
from moto import mock_aws
from ray._private.runtime_env.packaging import _zip_files
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.driver import WORKER_PACKAGES
from cluster.render_job import MOUNT
from dataset.io.ray_env import exclude_all_but
from render.system_check import SYSTEM_LIBRARIES
from tests.support.docker import apt_packages, docker_copies, docker_stages, is_sent_to_docker
from tests.support.paths import ROOT

NAMES = ["render", "local", "train", "aws", "gcp"]
CLOUDS = ["aws", "gcp"]


def load(name: str) -> dict:
    return yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_file(name):
    config = prepare_config(load(name))
    validate_config(config)
    assert config["provider"]["type"] == ("local" if name in ("render", "train") else name)


@pytest.mark.parametrize("name", NAMES)
def test_ray_refuses_a_file_with_a_typing_error(name):
    config = load(name)
    config["file_mount"] = config.pop("file_mounts")
    with pytest.raises(Exception, match="file_mount"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", NAMES)
def test_the_mounts_hold_what_the_job_needs(name):
    mounts = load(name)["file_mounts"]
    for package in (*WORKER_PACKAGES, "cluster"):
        assert mounts[f"{MOUNT}/{package}"] == package
    for local in mounts.values():
        assert (ROOT / local).exists()
    assert "." not in mounts.values()  # Ray would read all of .venv and data/ to hash them


def test_local_lists_addresses_and_leaves_node_types_to_ray():
    config = load("local")
    assert "available_node_types" not in config
    assert prepare_config(config)["available_node_types"]["local.cluster.node"]["min_workers"] == 2


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_scale_spot_gpu_workers_from_none_to_64(name):
    config = prepare_config(load(name))
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"], config["max_workers"]) == (0, 64, 64)
    assert gpu["resources"]["GPU"] == 1
    assert head["resources"]["CPU"] == 0
    spot = ("InstanceMarketOptions", {"MarketType": "spot"}) if name == "aws" else ("scheduling", "SPOT")
    assert spot[1] in (gpu["node_config"][spot[0]], *gpu["node_config"][spot[0]].values())
    assert spot[0] not in head["node_config"]


@pytest.mark.parametrize("name", CLOUDS)
def test_nothing_of_rays_own_installations_is_left(name):
    """Ray's default commands install a nightly Ray, so our files replace all of them."""
    config = prepare_config(load(name))
    commands = config["head_setup_commands"] + config["worker_setup_commands"] + config["setup_commands"]
    assert all("--constraint /opt/isotropic3d/requirements.lock" in command for command in commands)


@pytest.mark.parametrize("name", CLOUDS)
def test_containers_mount_folders_only(name):
    assert all((ROOT / local).is_dir() for local in load(name)["file_mounts"].values())


@pytest.mark.parametrize("node_type", ["head", "gpu"])
def test_ec2_knows_every_field_of_aws_nodes(node_type):
    """Checked against EC2's description of RunInstances in botocore."""
    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    node_config = load("aws")["available_node_types"][node_type]["node_config"]
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    assert not report.has_errors(), report.generate_report()
    wrong = {**node_config, "MinCount": 1, "MaxCount": 1, "InstanceMarketOption": {}}
    assert ParamValidator().validate(wrong, shape).has_errors()


def test_ray_launches_spot_workers_on_an_imitation_of_aws(monkeypatch, tmp_path):
    """Requests of `ray up` and the autoscaler to AWS: roles, key, subnets, security group, a node of type gpu."""
    for name, value in [("ACCESS_KEY_ID", "none"), ("SECRET_ACCESS_KEY", "none"), ("DEFAULT_REGION", "us-west-2")]:
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
        from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_USER_NODE_TYPE

        ec2 = boto3.client("ec2")
        boto3.client("iam").create_instance_profile(InstanceProfileName="isotropic3d-head")
        ec2.create_key_pair(KeyName="key")
        (tmp_path / "key.pem").touch()
        config = prepare_config(load("aws"))
        config["auth"]["ssh_private_key"] = str(tmp_path / "key.pem")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for node_type in config["available_node_types"].values():
            node_type["node_config"] |= {"ImageId": image, "KeyName": "key"}
        config = bootstrap_aws(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: "gpu", TAG_RAY_NODE_NAME: "gpu-1"}
        provider.create_node(config["available_node_types"]["gpu"]["node_config"], tags, 1)
        launched = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert [(i["InstanceType"], i["InstanceLifecycle"]) for i in launched] == [("g6.xlarge", "spot")]


def test_set_up_installs_the_libraries_that_check_lists():
    script = (ROOT / "cluster" / "setup_node.sh").read_text()
    listed = re.search(r"packages=\((.*)\)", script)
    assert set(listed[1].split()) == {"make", "python3.11", "python3.11-venv", *SYSTEM_LIBRARIES.values()}


def test_dockerfile_installs_the_libraries_that_check_lists():
    node = docker_stages()["node"]
    assert apt_packages(node) == {*SYSTEM_LIBRARIES.values(), "openssh-client", "rsync", "tmux"}
    assert re.search(r"^FROM python:3\.11-slim-", node, re.MULTILINE)


def test_the_node_is_the_last_stage_which_is_built_by_default():
    assert list(docker_stages())[-1] == "node"


def test_dockerfile_copies_files_that_exist_and_reach_the_builder():
    (copied,) = docker_copies(docker_stages()["node"])
    source, target = copied
    assert is_sent_to_docker(source)
    for name in CLOUDS:  # whose set-up reads it
        assert f"--constraint {target}" in " ".join(load(name)["head_setup_commands"])


def test_nodes_and_drivers_have_the_same_ray():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    wanted = next(
        r for r in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"] if "ray" in r
    )
    assert pinned[1].startswith("2.60")
    assert "2.60" in wanted


def test_a_worker_is_sent_the_packages_and_nothing_else(tmp_path):
    """Uses Ray's matcher, which differs from git's."""
    for name in ["dataset/a.py", "render/b.py", "render/procedural/c.py", "render/__pycache__/b.pyc", "cluster/d.py"]:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in [".venv/lib/e.py", "data/set/shard-000000.tar", "x/y", ".git/config", "Makefile"]:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _zip_files(
        str(tmp_path / "checkout"), exclude_all_but(WORKER_PACKAGES), str(tmp_path / "sent.zip"), include_gitignore=True
    )
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        assert sorted(sent.namelist()) == ["dataset/a.py", "render/b.py", "render/procedural/c.py"]

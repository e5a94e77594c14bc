"""What a machine can honestly offer."""

from compute_horde.protocol.enums import ExecutorClass
from compute_horde.stack.offer import GIB, machine_offer, offer


def test_a_small_machine_offers_only_the_test_class() -> None:
    assert offer(3, cores=2, ram_bytes=24 * GIB, gpus={}) == {ExecutorClass.always_on__test: 3}


def test_cpu_executors_are_as_many_as_fit() -> None:
    offered = offer(4, cores=20, ram_bytes=64 * GIB, gpus={})
    assert offered[ExecutorClass.always_on__cpu_8c_16gb] == 2
    assert offer(1, cores=20, ram_bytes=64 * GIB, gpus={})[ExecutorClass.always_on__cpu_8c_16gb] == 1
    assert ExecutorClass.always_on__cpu_8c_16gb not in offer(1, cores=20, ram_bytes=8 * GIB, gpus={})


def test_a_gpu_serves_one_job_at_a_time() -> None:
    offered = offer(4, cores=2, ram_bytes=8 * GIB, gpus={"NVIDIA GeForce RTX 4090": 24564})
    assert offered[ExecutorClass.always_on__gpu_24gb] == 1
    assert offered[ExecutorClass.spin_up_4min__gpu_24gb] == 1
    assert ExecutorClass.always_on__llm__a6000 not in offered
    assert ExecutorClass.always_on__gpu_24gb not in offer(4, cores=2, ram_bytes=8 * GIB, gpus={"T4": 16000})


def test_the_llm_class_needs_a_card_of_its_kind() -> None:
    assert ExecutorClass.always_on__llm__a6000 in offer(1, cores=2, ram_bytes=8 * GIB, gpus={"RTX A6000": 49140})
    assert ExecutorClass.always_on__llm__a6000 not in offer(1, cores=2, ram_bytes=8 * GIB, gpus={"Other": 49140})


def test_this_machine_offers_the_test_class() -> None:
    assert machine_offer(2)[ExecutorClass.always_on__test] == 2

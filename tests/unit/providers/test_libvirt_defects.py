"""Every defect that the reference pages list for libvirt, and every option and promise of the driver, with its tests.

The table is checked: each test that it names exists. So nobody removes the one that would catch a defect unseen.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
BOOT, FAULTS = "functional/libvirt/test_boot.py", "functional/libvirt/test_faults.py"
DOMAIN, TRANSLATE = "unit/providers/test_libvirt_domain.py", "unit/providers/test_libvirt_translate.py"
PROVIDER, SETTINGS = "unit/providers/test_libvirt_provider.py", "unit/providers/test_libvirt_settings.py"
CHECKS, CONNECTION = "unit/providers/test_libvirt_checks.py", "functional/libvirt/test_connection.py"
DATA = "functional/libvirt/test_data_volumes.py"
FACTS, SIGHT = "unit/providers/test_libvirt_facts.py", "unit/providers/test_libvirt_sight.py"
CONTRACT = "../caa/testing/provider_contract.py"

# providers.md 5.2, 5.1, 1.6, 0 and 6.6, user-pains.md
DEFECTS: Mapping[str, tuple[str, ...]] = {
    "volumes leak on every failure before the start": (
        f"{FAULTS}::TestPretended::test_create",
        f"{BOOT}::test_no_disk",
    ),
    "domain and volumes leak when the start fails": (
        f"{FAULTS}::TestReal::test_create",
        f"{FAULTS}::TestPretended::test_create_with_a_second_fault_in_its_undoing",
        f"{FAULTS}::TestPretended::test_cancelled_at_every_call",
    ),
    "an existing name is success, with an empty id": (
        f"{PROVIDER}::test_defect_an_existing_name_is_success",
        f"{FAULTS}::test_a_domain_of_somebody_else_stays",
        f"{FAULTS}::TestPretended::test_adopting_with_a_fault",
    ),
    "an endless wait for the address that ignores cancellation": (
        f"{PROVIDER}::test_defect_an_endless_wait",
        f"{BOOT}::test_a_wait_that_is_cancelled",
        f"{BOOT}::test_a_guest_that_never_asks_for_an_address",
        f"{PROVIDER}::test_an_event_ends_a_pause",
    ),
    "one connection, without keep-alive, never opened again": (
        f"{CONNECTION}::test_a_silent_daemon_is_noticed",
        f"{CONNECTION}::test_a_lost_one_is_opened_again",
        f"{CONNECTION}::test_a_daemon_that_hangs_as_it_is_opened",
        f"{BOOT}::test_libvirtd_restarted_while_a_guest_boots_and_runs",
        f"{BOOT}::test_libvirtd_restarted_at_each_step_of_a_create",
    ),
    "refreshes of the pool collide": (
        f"{FAULTS}::TestPretended::test_the_pool_is_never_refreshed",
        f"{BOOT}::test_an_image_that_the_pool_does_not_know_yet",
        f"{PROVIDER}::test_libvirtd_that_comes_back",
        f"{BOOT}::test_five_at_once",
    ),
    "a domain that is shutting down or asleep is not destroyed": (
        "functional/libvirt/test_states.py::test_defect_a_pod_vm_that_is_shutting_down_or_asleep_stays",
        f"{BOOT}::test_deleting_in_any_state",
    ),
    "a delete that failed after undefine cannot be repeated": (
        f"{FAULTS}::TestPretended::test_delete",
        f"{FAULTS}::TestReal::test_delete",
    ),
    "firmware autoselection with a loader's path, which libvirt 9.0 refuses": (
        f"{DOMAIN}::test_defect_a_firmware_path_beside_autoselection",
        f"{DOMAIN}::TestSchema::test_firmware_and_tpm",
        f"{BOOT}::test_machines_that_start",
    ),
    "user data with the TLS key, mode 644": (
        f"{DOMAIN}::test_defect_user_data_that_everybody_reads",
        f"{BOOT}::test_the_seed_is_closed_to_others_while_it_is_there",
        f"{BOOT}::test_a_pod_vm",
    ),
    "kvm only": (
        f"{DOMAIN}::test_defect_kvm_only",
        f"{FACTS}::test_kvm_where_it_is_usable",
        f"{BOOT}::test_kvm_that_libvirt_offers_and_that_does_not_work",
    ),
    "addresses from libvirt's leases only": (
        f"{SIGHT}::test_sources_in_turn",
        f"{SIGHT}::test_an_agent_tells_of_tunnels_and_pods_too",
        f"{SIGHT}::test_what_was_tried",
    ),
    "no instance-id in meta-data": ("unit/providers/test_libvirt_seed.py::test_defect_no_instance_id_in_meta_data",),
    "5.1 A1: nothing says whose a VM is, nothing lists them": (
        f"{CONTRACT}::ProviderContract::test_list_owned_goes_by_owner_only",
        f"{CONTRACT}::ProviderContract::test_create_twice_is_once",
        f"{DOMAIN}::test_metadata_comes_back_and_nothing_secret_is_in_the_document",
    ),
    "5.1 A2: to delete what is gone is an error": (
        f"{CONTRACT}::ProviderContract::test_delete_twice_is_success",
        f"{CONTRACT}::ProviderContract::test_delete_of_what_never_was_is_success_or_refused",
    ),
    "5.1 A5: no bound on a call, none on calls at a time": (
        "functional/libvirt/test_states.py::test_calls_that_block_leave_the_loop_free_and_are_bounded",
        f"{PROVIDER}::test_libvirtd_that_stays_away",
    ),
    "5.1 A7: what is wrong shows at the first pod": (
        f"{CHECKS}::test_what_is_wrong_is_told_with_a_remedy",
        f"{BOOT}::test_what_is_wrong_is_found_before_a_pod_asks",
    ),
    "0: volumes are silently ignored": (
        f"{DATA}::test_data_volumes",
        "e2e/libvirt/test_volumes.py::test_a_disk_is_attached_mounted_and_kept",
        "unit/sandbox/test_volumes.py::test_defect_a_driver_without_volumes_starts_a_pod_without_its_disk",
    ),
    "0: numbers that are none count as 0": (f"{TRANSLATE}::test_types_that_are_none", f"{TRANSLATE}::test_sizes"),
    "1.6: machine_type and GPUs are ignored": (
        f"{TRANSLATE}::test_sizes",
        f"{TRANSLATE}::test_gpus_are_refused_not_ignored",
    ),
    "1.6: a pod may boot any volume of the pool": (
        f"{TRANSLATE}::test_images_that_are_not",
        f"{TRANSLATE}::test_another_pod_s_disk_is_no_image_whatever_is_allowed",
        f"{SETTINGS}::test_pods_choose_no_image_unless_the_operator_says_so",
    ),
    "1.6: every file-backed disk of the domain is deleted": (f"{DATA}::test_data_volumes",),
    "1.6: no launchSecurity in the XML of a confidential VM": (
        f"{DOMAIN}::test_launch_security_of_x86",
        f"{DOMAIN}::test_launch_security_of_s390",
        f"{DOMAIN}::TestSchema::test_launch_security",
        f"{DOMAIN}::test_a_confidential_vm_is_never_an_ordinary_one",
        "unit/providers/test_libvirt_host_data.py::test_the_whole_document_is_valid",
    ),
    "1.6: the root disk's size overflows, or is less than the image": (
        f"{DOMAIN}::test_the_root_disk_is_never_smaller_than_the_image",
        f"{SETTINGS}::test_a_root_disk_of_nothing_is_the_default",
        f"{SETTINGS}::test_values_that_are_refused",
    ),
    "6.6: undefine with flags that a driver does not know": (
        "contract/test_provider_libvirt.py::TestTestDriver::cloud",
    ),
    "user-pains: a volume of the same name boots the wrong image": (f"{FAULTS}::test_a_volume_of_somebody_else_stays",),
    "user-pains: an empty list of addresses crashes the daemon": (
        f"{CONTRACT}::ProviderContract::test_an_instance_has_what_was_asked_for",
        f"{PROVIDER}::test_an_address_that_comes_late",
    ),
    "user-pains 5.1: the event of an image that is not there": (
        f"{BOOT}::test_an_alternate_image_that_is_not_there",
        f"{BOOT}::test_an_image_that_is_not_there",
    ),
}
# What the driver promises beside: options by their names, and how each shows.
PROMISES: Mapping[str, tuple[str, ...]] = {
    "the options of 1.6 under their names, with their defaults": (f"{SETTINGS}::test_the_reference_s_options",),
    "LIBVIRT_URI over ssh": (
        "functional/libvirt/test_ssh.py::test_a_pod_vm_on_another_host",
        "functional/libvirt/test_ssh.py::test_what_ssh_says_reaches_the_operator",
    ),
    "a kind that the host has not is refused": (
        f"{DOMAIN}::test_a_host_that_cannot_is_refused",
        f"{BOOT}::test_confidential_vms_are_refused_here",
    ),
    "vTPM and secure boot": (f"{DOMAIN}::TestSchema::test_firmware_and_tpm", f"{BOOT}::test_machines_that_start"),
    "machines of four architectures": (f"{DOMAIN}::test_machines", f"{DOMAIN}::TestSchema::test_every_architecture"),
    "cpuset": (f"{DOMAIN}::test_cpuset", f"{BOOT}::test_machines_that_start"),
    "the user data is gone once the VM runs": (f"{BOOT}::test_a_pod_vm",),
    "instance_types from the host": (f"{PROVIDER}::test_the_largest_type",),
    "no memory and no disk are told apart": (
        "unit/providers/test_libvirt_faults.py::test_no_memory_and_no_disk_are_told_apart",
        f"{BOOT}::test_no_memory",
        f"{BOOT}::test_no_disk",
        f"{FAULTS}::TestPretended::test_user_data_that_the_pool_keeps_half_of",
        f"{PROVIDER}::test_a_pool_that_is_full_while_a_guest_boots",
    ),
    "the console, of a dead VM too": (f"{BOOT}::test_a_dead_pod_vm_still_has_its_console",),
    "data volumes: in order, locked, never followed elsewhere": (
        f"{DATA}::test_data_volumes",
        f"{DATA}::test_a_data_volume_that_another_vm_uses",
        f"{DATA}::test_a_header_that_a_guest_wrote_leads_to_no_file_of_the_host",
        f"{TRANSLATE}::test_data_volumes_that_are_refused",
    ),
    "a whole pod": ("e2e/test_libvirt.py::test_one_pod_comes_and_goes_in_a_virtual_machine",),
}


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions and methods of a file, methods behind their class."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        for one in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{node.name}::{one.name}" if isinstance(node, ast.ClassDef) else one.name)
    return frozenset(found)


@pytest.mark.parametrize("what", [*DEFECTS, *PROMISES])
def test_each_has_a_test_that_would_catch_it(what: str) -> None:
    for test in {**DEFECTS, **PROMISES}[what]:
        file, _, name = test.partition("::")
        assert name in names_in(TESTS / file), f"{test} is gone: what catches {what!r} now?"

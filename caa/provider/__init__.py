"""The drivers' contract and what every driver needs, once.

Read `contract.py` first, then what a driver of a cloud is made of:

- `requests`, `choose`, `capacity`   what is asked for: checked, sized, and tried in one place after the other
- `ownership`, `addresses`           tags that say whose a resource is; which address counts
- `pacing`, `waiting`, `threads`     calls of the cloud: how often, how long, where SDKs may block
- `catalogue`, `kept`                instance types, kept on disk; images and the like, believed for a while
- `checks`                           what `check` of every driver is made of
- `rows`                             settings that several drivers share
- `console`                          the end of a VM's console, fit for an error
- `registry`, `observed`             how the node finds a driver, and logs its calls

A driver's author also wants `caa.testing.provider_contract`, the contract as tests.
"""

"""The drivers' contract and what every driver needs: choosing a type, capacity errors, the registry, observation.

Read `contract.py` first. A driver's author also wants `caa.testing.provider_contract`, the contract as tests.
"""

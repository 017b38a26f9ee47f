"""The pod VM's image: recipes as data, and the small builder that reads them. Not part of the wheel, not of the guest.

Read in this order: `tree` (files as they will be), `cpio` (an initramfs of them), `elf` (a program and its libraries),
`interpreter` (CPython with what the guest imports and no more), `kernel` (Debian's cloud kernel), `tiny` (kernel and
initramfs for tests), `cli` (the commands).
"""

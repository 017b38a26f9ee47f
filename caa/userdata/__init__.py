"""What travels to the VM at boot: cloud-config, apf.json, auth.json, initdata. Pure functions."""

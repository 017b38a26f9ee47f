"""The drivers, one folder a cloud. To add one: five files, one entry point (`caa.providers`), one contract test."""

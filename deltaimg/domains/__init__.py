# SPDX-License-Identifier: Apache-2.0
"""Guests as hypervisors describe them: their disks, their configuration, and how they are stopped for a moment."""

"""Tests of what ranks are told and what they leave."""

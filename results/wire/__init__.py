"""Generated from proto/: `make wire` writes it, a test finds any difference. Don't edit."""

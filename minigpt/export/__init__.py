"""In and out of other programs' forms of a model. Start with `hugging_face.py`."""

from minigpt.export.hugging_face import Imported, export_hugging_face, import_hugging_face

__all__ = ["Imported", "export_hugging_face", "import_hugging_face"]

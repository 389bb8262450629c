"""Where the shaded parts of a plot lie."""

__all__ = ["edges"]


def edges(shade):
    """Return left and right of what `axvspan` drew: a Polygon before matplotlib 3.9, a Rectangle since."""
    corners = shade.get_patch_transform().transform(shade.get_path().vertices)[:, 0]
    return corners.min(), corners.max()

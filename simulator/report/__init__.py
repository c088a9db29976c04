"""The report page: one self-contained HTML file rendered from an ``Experiment`` and, where there are, ``Diagnostics``.

``page.render`` is the entrance. It is not imported here: the charts need matplotlib, and whoever only wants the
package's numbers, or lists its files, should not pay for that.
"""

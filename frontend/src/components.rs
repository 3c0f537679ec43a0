//! Parts of pages.

pub mod chaos;
pub mod drawer;
pub mod feed;
pub mod filters;
pub mod form;
pub mod icons;
pub mod live;
pub mod load;
pub mod matrix;
pub mod member_controls;
pub mod metric;
pub mod node_table;
pub mod operation_view;
pub mod palette;
pub mod plan_button;
pub mod plan_panel;
pub mod plan_view;
pub mod running_list;
pub mod shell;
pub mod shortcuts;
pub mod sorting;
pub mod text;
pub mod theme;
